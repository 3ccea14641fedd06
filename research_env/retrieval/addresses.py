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

from research_env.errors import ConfigurationError
from research_env.plugins import load
from research_env.questions import Dataset
from research_env.questions.store import home
from research_env.retrieval.gateway import Gateway, GatewayOptions
from research_env.retrieval.options import check_no_secret, check_options
from research_env.retrieval.recording import Replay

RETRIEVERS: dict[str, str] = {
    "": "research_env.retrieval.embedded:open_embedded",
    "elasticsearch": "research_env.retrieval.elasticsearch:open_elasticsearch",
    "elasticsearchs": "research_env.retrieval.elasticsearch:open_elasticsearch",
    "http": "research_env.retrieval.remote:open_remote",
    "https": "research_env.retrieval.remote:open_remote",
}
"""Scheme of an address ("" is a path) -> `module:function` of address and options, imported when first used."""


def open_address(address: str, options: dict[str, Any]) -> Gateway:
    """See `research_env.retrieval.open_retriever`."""
    check_no_secret(address)
    scheme, separator, _ = address.partition("://")
    mine, others = _split(options, address)
    if mine.mode == "replay":
        return Gateway(Replay(mine.recording or ""), mine)
    if separator and ":" not in scheme and scheme not in RETRIEVERS:
        known = ", ".join(f"{name}://" for name in RETRIEVERS if name)
        raise ConfigurationError(f"corpus {address!r}: {scheme}:// is unknown; known: {known}, or a path")
    return Gateway(load(RETRIEVERS, "corpus", scheme if separator else "")(address, others), mine)


def open_pool(pool: Dataset, options: dict[str, Any]) -> Gateway:
    """The pool of a data set, in an embedded index that is built at first use."""
    from research_env.retrieval.bm25 import open_or_build

    mine = check_pool_options(options)
    if mine.mode == "replay":
        return Gateway(Replay(mine.recording or ""), mine)
    index = open_or_build(home() / "indexes", pool.name, pool.fingerprint, pool.passages, pool.num_passages)
    return Gateway(index, mine)


def check_pool_options(options: dict[str, Any]) -> GatewayOptions:
    """A pool's options: the gateway's alone."""
    return check_options(GatewayOptions, options, "retrieval of a pool")


def _split(options: dict[str, Any], address: str) -> tuple[GatewayOptions, dict[str, Any]]:
    mine = {name: value for name, value in options.items() if name in GatewayOptions.model_fields}
    others = {name: value for name, value in options.items() if name not in mine}
    return check_options(GatewayOptions, mine, f"corpus {address!r}"), others
