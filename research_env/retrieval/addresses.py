"""One address for every retriever.

| address | what is searched | options besides those of the gateway |
|---|---|---|
| a folder | an embedded index made by `python -m research_env index build` | `EmbeddedOptions` |
| a file of passages | an embedded index of it, built at first use and kept under `$RESEARCH_HOME` | `EmbeddedOptions` |
| `elasticsearch://host:9200/index` (`elasticsearchs` for TLS) | an index of a cluster | `ElasticsearchOptions` |
| `http://host:8000`, `https://…` | a server of the Search-R1 or ReSearch protocol | `RemoteOptions` |
| `package.module:function://…` | the `Retriever` that your function returns for this address and options | its own |

Every retriever stands behind a `Gateway` and takes its options as well (`GatewayOptions`).
"""

from __future__ import annotations

from typing import Any

from research_env import names
from research_env.errors import ConfigurationError
from research_env.retrieval.base import NEEDS, Retriever
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.retrieval.gateway.recording import Replay
from research_env.retrieval.options import check_no_secret, check_options
from research_env.types import Corpus

RETRIEVERS: dict[str, str] = {
    "": "research_env.retrieval.embedded.folder:open_embedded",
    "elasticsearch": "research_env.retrieval.elasticsearch.search:open_elasticsearch",
    "elasticsearchs": "research_env.retrieval.elasticsearch.search:open_elasticsearch",
    "http": "research_env.retrieval.remote.client:open_remote",
    "https": "research_env.retrieval.remote.client:open_remote",
}
"""Scheme of an address ("" is a path) -> `module:function` of address and options, imported when first used."""


def open_retriever(address: str, /, **options: Any) -> Gateway:
    """Open the retriever at `address`; the table above has the addresses and their options.

    Raises:
        ConfigurationError: the address or an option cannot work.
        RetrievalError: no usable retriever answers there.
    """
    # This check comes first: no message below may quote an address that holds a password.
    check_no_secret(address)
    scheme, separator, _ = address.partition("://")
    where = f"corpus {address!r}"
    ours = {name: value for name, value in options.items() if name in GatewayOptions.model_fields}
    theirs = {name: value for name, value in options.items() if name not in ours}
    chosen = check_options(GatewayOptions, ours, where)
    # A recording replaces the retriever, which need not be there any more.
    if chosen.mode == "replay":
        return Gateway(Replay(chosen.recording or ""), chosen)
    if separator and ":" not in scheme and scheme not in RETRIEVERS:
        known = ", ".join(f"{name}://" for name in RETRIEVERS if name)
        hint = names.did_you_mean(scheme, RETRIEVERS)
        raise ConfigurationError(f"{where}: {scheme}:// is unknown; known: {known}, or a path{hint}")
    backend = _backend(scheme if separator else "", address, theirs)
    try:
        return Gateway(backend, chosen)
    except BaseException:  # the recording is of another corpus, or cannot be opened
        backend.close()
        raise


def _backend(scheme: str, address: str, options: dict[str, Any]) -> Retriever:
    """What the function of a scheme returns, checked: it may be somebody else's."""
    backend: Retriever = names.make(RETRIEVERS, "corpus", scheme, NEEDS, address, options)
    if not isinstance(backend.corpus, Corpus):
        raise ConfigurationError(
            f"corpus={scheme!r}: the retriever's corpus is {type(backend.corpus).__name__}, not a "
            "research_env.types.Corpus"
        )
    for name in ("max_batch", "concurrency"):
        value = getattr(backend, name)
        if not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"corpus={scheme!r}: the retriever has {name}={value!r}; give 1 or more")
    return backend
