"""Elasticsearch as the retriever: BM25 over title and text, k-nearest vectors, or both."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval import Corpus, Hit, Passage
from research_env.retrieval.fusion import fusion_depth, reciprocal_rank
from research_env.retrieval.keywords import keywords
from research_env.retrieval.options import check_no_secret, check_options, secret

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

MAX_QUERY = 1_000
"""Characters of a query that are searched for: a question has about 100, and a clause costs the cluster time."""


class ElasticsearchOptions(BaseModel):
    """Options of `elasticsearch://` and `elasticsearchs://`. Credentials are in the environment: see `connect`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    timeout: float = Field(10.0, gt=0)
    """Seconds until a request is given up."""
    rank: Literal["bm25", "dense", "hybrid"] = "bm25"
    """How passages are ranked: by terms, by vectors (the index must have been built with an encoder), or by both."""
    device: str = "cpu"
    """Where queries are encoded, e.g. `"cuda"`."""


def connect(address: str, timeout: float) -> tuple[Elasticsearch, str]:
    """A client for the cluster, checked to answer, and the index's name.

    Credentials come from the environment: `ELASTIC_API_KEY`, or `ELASTIC_PASSWORD` with `ELASTIC_USERNAME` (default
    `elastic`); `ELASTIC_CA_CERTS` is the file of the certificate authority where it is not a public one.

    Raises:
        ConfigurationError: the address is none, holds credentials, or the client does not fit the server.
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
    known = address.startswith(("elasticsearch://", "elasticsearchs://"))
    if not known or not host or not re.fullmatch(r"[^-_+*,?#\s/\\<>|\"][^*,?#\s/\\<>|\"]*", index) or parts.query:
        raise ConfigurationError(f"{address!r} is no address of an index; write elasticsearch://host:9200/index")
    secure = parts.scheme == "elasticsearchs"
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
    # Its warnings of a node that fails come beside the errors that say so.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    node = f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    client = elasticsearch.Elasticsearch(node, **settings)
    try:
        server = client.info()["version"]["number"]
    except Exception as error:
        raise failure(error, address) from None
    ours = version("elasticsearch")
    if server.split(".")[0] != ours.split(".")[0]:
        raise ConfigurationError(_mismatch(address, server, ours))
    return client, index


def _mismatch(address: str, server: str, ours: str) -> str:
    major = server.split(".")[0]
    wanted = f"'elasticsearch>={major},<{int(major) + 1}'" if major.isdecimal() else "'elasticsearch'"
    return f"{address} is Elasticsearch {server}, but the client here is {ours}: pip install {wanted}"


def failure(error: BaseException, address: str) -> Exception:
    """What to raise in the place of an error of the client."""
    import elasticsearch

    if isinstance(error, (RetrievalError, ConfigurationError)):
        return error
    text = " ".join(str(error).split())[:300]
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
    """What Elasticsearch means when it takes no more: it makes its indexes read-only before its disk is full."""
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


class ElasticsearchRetriever:
    """An index made by `python -m research_env index build`. All queries of a call go out as one `_msearch`."""

    max_batch = 64
    concurrency = 4

    def __init__(self, address: str, options: ElasticsearchOptions) -> None:
        """Connect, and read what the index says about itself.

        Raises:
            ConfigurationError, RetrievalError: as `connect`; or the index is missing, unfinished, or without vectors.
        """
        self.address, self._rank = address, options.rank
        self._client, self._index = connect(address, options.timeout)
        try:
            mappings = list(self._client.indices.get_mapping(index=self._index).values())
        except Exception as error:
            raise failure(error, address) from None
        if len(mappings) != 1:
            raise ConfigurationError(f"{address} is an alias of {len(mappings)} indexes; name one")
        about = mappings[0]["mappings"].get("_meta", {})
        if not about.get("complete"):
            raise RetrievalError(
                f"{address} is not an index of passages, or its build was stopped: run python -m research_env index "
                f"build --corpus FILE --to {address} (it goes on where it stopped)"
            )
        self.corpus = Corpus(**about["corpus"])
        self.settings: Mapping[str, Any] = {
            "engine": "elasticsearch", "rank": options.rank, "query": "keywords", **about["settings"]
        }  # fmt: skip
        self._encoder: Any = None
        if options.rank != "bm25":
            encoder = about["settings"].get("encoder")
            if not encoder:
                raise ConfigurationError(
                    f"{address}: rank={options.rank!r} needs vectors, and this index was built without --encoder"
                )
            from research_env.retrieval.dense import Encoder

            self._encoder = Encoder(encoder, options.device)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        # What UTF-8 cannot hold, JSON must not.
        clean = [query[:MAX_QUERY].encode("utf-8", "replace").decode("utf-8") for query in queries]
        depth = fusion_depth(top_k) if self._rank == "hybrid" else top_k
        bodies: list[dict[str, Any]] = []
        if self._rank != "dense":
            bodies += [self._terms(query, depth) for query in clean]
        if self._rank != "bm25":
            # A blank text has no meaning to look for: it is encoded all the same, and its hits dropped.
            bodies += [self._nearest(vector, depth) for vector in self._encoder.queries(clean)]
        found = self._send(bodies)
        if self._rank == "hybrid":
            found = [
                reciprocal_rank(both, top_k) for both in zip(found[: len(clean)], found[len(clean) :], strict=True)
            ]
        return [hits if query.strip() else [] for query, hits in zip(clean, found, strict=True)]

    def _terms(self, query: str, size: int) -> dict[str, Any]:
        # most_fields sums the scores of title and text; best_fields would let one hide the other.
        wanted = keywords(query, self.settings["analyser"])
        match = {"query": wanted, "fields": ["title", "text"], "type": "most_fields"}
        return {"query": {"multi_match": match}, "size": size}

    def _nearest(self, vector: Any, size: int) -> dict[str, Any]:
        nearest = {
            "field": "vector", "query_vector": vector.tolist(), "k": size, "num_candidates": max(100, 4 * size)
        }  # fmt: skip
        return {"knn": nearest, "size": size}

    def _send(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Hit]]:
        # Half an answer would be taken for the whole: a shard that fails or runs out of time fails the search.
        common = {"_source": ["title", "text"], "track_total_hits": False}
        header = {"index": self._index, "allow_partial_search_results": False}
        searches = [line for body in bodies for line in (header, {**body, **common})]
        try:
            responses = self._client.msearch(searches=searches)["responses"]
        except Exception as error:
            raise failure(error, self.address) from None
        return [self._hits(response) for response in responses]

    def _hits(self, response: Any) -> list[Hit]:
        if "error" in response:
            error, status = response["error"], response.get("status")
            cause = next(iter(error.get("root_cause") or [error]))
            text = f"{error.get('reason')}: {cause.get('type')}, {cause.get('reason')}"[:300]
            if status in (429, 500, 502, 503, 504):  # a queue that is full, a shard that is gone for now
                raise RetrievalUnavailable(f"{self.address}: a search failed with status {status} ({text})")
            if "index_not_found" in text:
                raise RetrievalError(f"{self.address}: the index is gone ({text})")
            raise RetrievalError(f"{self.address}: a search failed with status {status} ({text})")
        if response.get("timed_out") or response["_shards"]["failed"]:
            raise RetrievalUnavailable(f"{self.address}: a search was answered in part only ({response['_shards']})")
        return [
            Hit(Passage(hit["_id"], hit["_source"]["title"], hit["_source"]["text"]), hit["_score"])
            for hit in response["hits"]["hits"]
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_elasticsearch(address: str, options: dict[str, Any]) -> ElasticsearchRetriever:
    """The index at an address; see `ElasticsearchRetriever`."""
    chosen: ElasticsearchOptions = check_options(ElasticsearchOptions, options, f"corpus {address!r}")
    return ElasticsearchRetriever(address, chosen)
