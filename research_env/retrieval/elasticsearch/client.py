"""The client of an Elasticsearch cluster: it is connected and checked, and its errors become errors of this package."""

from __future__ import annotations

import logging
import os
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval.options import check_no_secret, secret
from research_env.text import one_line

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


def connect(address: str, timeout: float) -> tuple[Elasticsearch, str]:
    """A client for the cluster, checked to answer, and the index's name.

    Credentials come from the environment: `ELASTIC_API_KEY`, or `ELASTIC_PASSWORD` with `ELASTIC_USERNAME` (default
    `elastic`); `ELASTIC_CA_CERTS` is the file of the certificate authority where it is not a public one.

    Raises:
        ConfigurationError: the address is invalid or holds credentials, or the client does not fit the server.
        RetrievalUnavailable: nothing answers there.
        RetrievalError: the cluster refuses, e.g. the credentials.
    """
    try:
        import elasticsearch
    except ImportError:
        raise ConfigurationError(
            f"{address} needs the Elasticsearch client: pip install 'research-gym[elasticsearch]'"
        ) from None
    check_no_secret(address)
    try:
        parts = urlsplit(address)
        host, port, index = parts.hostname, parts.port or 9200, parts.path.strip("/")
    except ValueError:
        host, port, index = None, 0, ""
    # Elasticsearch's own rules for a name, without wildcards and lists: one index is searched.
    known = address.startswith(("elasticsearch://", "elasticsearchs://"))
    if not known or not host or not re.fullmatch(r"[^-_+*,?#\s/\\<>|\"][^*,?#\s/\\<>|\"]*", index) or parts.query:
        raise ConfigurationError(f"{address!r} is not the address of an index; write elasticsearch://host:9200/index")
    secure = parts.scheme == "elasticsearchs"
    # No retries of the client's own: the gateway decides when to try again, and counts it.
    settings: dict[str, Any] = {
        "request_timeout": timeout, "max_retries": 0, "retry_on_timeout": False, "http_compress": False,
        "connections_per_node": 16,
    }  # fmt: skip
    key, password = secret("ELASTIC_API_KEY"), secret("ELASTIC_PASSWORD")
    if key:
        settings["api_key"] = key
    elif password:
        settings["basic_auth"] = (secret("ELASTIC_USERNAME") or "elastic", password)
    if secure and os.environ.get("ELASTIC_CA_CERTS"):
        settings["ca_certs"] = os.environ["ELASTIC_CA_CERTS"]
        if not os.path.isfile(settings["ca_certs"]):
            raise ConfigurationError(f"ELASTIC_CA_CERTS={settings['ca_certs']}: there is no such file")
    # Its warnings about a failing node would be printed beside the error that says the same.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    node = f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    client = elasticsearch.Elasticsearch(node, **settings)
    try:
        server = client.info()["version"]["number"]
        # The client speaks to servers of its own major version only; others answer with errors that explain nothing.
        ours = version("elasticsearch")
        if server.split(".")[0] != ours.split(".")[0]:
            raise ConfigurationError(_mismatch(address, server, ours))
    except Exception as error:
        client.close()
        raise failure(error, address) from None
    return client, index


def _mismatch(address: str, server: str, ours: str) -> str:
    major = server.split(".")[0]
    wanted = f"'elasticsearch>={major},<{int(major) + 1}'" if major.isdecimal() else "'elasticsearch'"
    return f"{address} is Elasticsearch {server}, but the client here is {ours}: pip install {wanted}"


def failure(error: BaseException, address: str) -> Exception:
    """What to raise in place of an error of the client."""
    import elasticsearch

    if isinstance(error, (RetrievalError, ConfigurationError)):
        return error
    text = one_line(error)[:300]
    # These two come before ConnectionError, because they are subclasses of it.
    if isinstance(error, elasticsearch.SSLError):
        return RetrievalError(
            f"{address}: the TLS connection failed ({text}); name the certificate authority's file in "
            "ELASTIC_CA_CERTS, and write elasticsearch:// for a cluster without TLS"
        )
    if isinstance(error, elasticsearch.ConnectionTimeout):
        return RetrievalUnavailable(f"{address} did not answer in time; is it overloaded? ({text})")
    if isinstance(error, elasticsearch.ConnectionError):
        return RetrievalUnavailable(f"{address} cannot be reached; is Elasticsearch running there? ({text})")
    if isinstance(error, elasticsearch.UnsupportedProductError):
        return ConfigurationError(f"{address} answers, but is not Elasticsearch")
    if isinstance(error, elasticsearch.ApiError):
        return _refused(error, address, text)
    if isinstance(error, elasticsearch.TransportError):
        return RetrievalUnavailable(f"{address}: {text}")
    return error if isinstance(error, Exception) else RetrievalError(f"{address}: {text}")


def disk_full(address: str) -> RetrievalError:
    """What a refusal to write means: Elasticsearch makes its indexes read-only before its disk is full."""
    return RetrievalError(
        f"{address} is read-only, which Elasticsearch does when its disk is full: make room there and run this again"
    )


def _refused(error: Any, address: str, text: str) -> Exception:
    status = error.status_code
    if status == 401:
        return RetrievalError(
            f"{address} refuses the credentials; set ELASTIC_API_KEY, or ELASTIC_USERNAME and ELASTIC_PASSWORD"
        )
    if "read-only-allow-delete" in text:
        return disk_full(address)
    if status == 403:
        return RetrievalError(f"{address}: these credentials do not have the right to do this ({text})")
    if "media_type_header" in text or "compatible-with" in text:
        return ConfigurationError(_mismatch(address, "of another major version", version("elasticsearch")))
    if "index_not_found" in text:
        return RetrievalError(
            f"{address}: there is no such index; build it: "
            f"python -m research_env index build --corpus FILE --to {address}"
        )
    if status in (408, 429, 502, 503, 504):
        return RetrievalUnavailable(f"{address} is overloaded or starting: status {status} ({text})")
    return RetrievalError(f"{address}: status {status} ({text})")
