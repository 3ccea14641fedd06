"""Elasticsearch as the retriever: BM25 over title and text, k-nearest vectors, or both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval.elasticsearch.client import connect, failure
from research_env.retrieval.embedded.encoder import Encoder, recorded
from research_env.retrieval.fusion import fusion_depth, reciprocal_rank
from research_env.retrieval.keywords import keywords
from research_env.retrieval.options import check_options
from research_env.retrieval.searchable import asked
from research_env.types import Corpus, Hit, Passage

MAX_QUERY = 1_000
"""Characters of a query that are searched for: a question has about 100, and a clause costs the cluster time."""
FIELDS = ["title", "text", "given"]
"""What a passage is made of; `given` is absent where title and text are searched as they came."""
_log = logging.getLogger(__name__)


def to_passage(hit: Mapping[str, Any]) -> Passage:
    """A hit of a search or a scan over `FIELDS` as the passage that was indexed."""
    source = hit["_source"]
    return Passage(hit["_id"], *source.get("given", (source["title"], source["text"])))


class ElasticsearchOptions(BaseModel):
    """Options of `elasticsearch://` and `elasticsearchs://`. Credentials are in the environment: see `connect`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    timeout: float = Field(10.0, gt=0)
    """Seconds until a request is given up."""
    rank: Literal["bm25", "dense", "hybrid"] = "bm25"
    """How passages are ranked: by terms, by vectors (the index must have been built with an encoder), or by both."""
    device: str = "cpu"
    """Where queries are encoded, e.g. `"cuda"`."""


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
            about = self._about()
            self.corpus = Corpus(**about["corpus"])
            self.settings: Mapping[str, Any] = {
                "engine": "elasticsearch", "rank": options.rank, "query": "keywords", **about["settings"]
            }  # fmt: skip
            self._is_current = "layout" in about
            if not self._is_current:
                _log.warning("%s was made by an earlier version: it does not find Chinese, Japanese or Thai", address)
            self._encoder = self._open_encoder(options.device)
        except BaseException:
            self._client.close()  # the caller gets no object that it could close
            raise

    def _about(self) -> dict[str, Any]:
        """What a build has noted in the index."""
        try:
            mappings = list(self._client.indices.get_mapping(index=self._index).values())
        except Exception as error:
            raise failure(error, self.address) from None
        if len(mappings) != 1:
            raise ConfigurationError(f"{self.address} is an alias of {len(mappings)} indexes; name one")
        about: dict[str, Any] = mappings[0]["mappings"].get("_meta", {})
        if not about.get("complete"):
            raise RetrievalError(
                f"{self.address} is not an index of passages, or its build was stopped: run python -m research_env "
                f"index build --corpus FILE --to {self.address} (a build goes on where it stopped)"
            )
        return about

    def _open_encoder(self, device: str) -> Encoder | None:
        """The encoder that the index was built with, where vectors are searched."""
        if self._rank == "bm25":
            return None
        encoder = self.settings.get("encoder")
        if not encoder:
            raise ConfigurationError(
                f"{self.address}: rank={self._rank!r} needs vectors, and this index was built without --encoder"
            )
        return recorded(dict(self.settings), device)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        # Half of a surrogate pair cannot be sent: UTF-8 does not hold it.
        clean = [query[:MAX_QUERY].encode("utf-8", "replace").decode("utf-8") for query in queries]
        depth = fusion_depth(top_k) if self._rank == "hybrid" else top_k
        bodies: list[dict[str, Any]] = []
        if self._rank != "dense":
            bodies += [self._terms(query, depth) for query in clean]
        if self._encoder:
            # A blank query is encoded, too, so that every query keeps its place. Its hits mean nothing, and are
            # dropped at the end.
            bodies += [self._nearest(vector, depth) for vector in self._encoder.queries(clean)]
        found = self._send(bodies)
        if self._rank == "hybrid":
            found = [
                reciprocal_rank(both, top_k) for both in zip(found[: len(clean)], found[len(clean) :], strict=True)
            ]
        return [hits if query.strip() else [] for query, hits in zip(clean, found, strict=True)]

    def _terms(self, query: str, size: int) -> dict[str, Any]:
        # most_fields sums the scores of title and text; best_fields would let one hide the other.
        wanted = keywords(asked(query) if self._is_current else query, self.settings["analyser"])
        match = {"query": wanted, "fields": ["title", "text"], "type": "most_fields"}
        return {"query": {"multi_match": match}, "size": size}

    def _nearest(self, vector: Any, size: int) -> dict[str, Any]:
        nearest = {
            "field": "vector", "query_vector": vector.tolist(), "k": size, "num_candidates": max(100, 4 * size)
        }  # fmt: skip
        return {"knn": nearest, "size": size}

    def _send(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Hit]]:
        # A partial answer would look like a complete one: a shard that fails or runs out of time must fail the search.
        common = {"_source": FIELDS, "track_total_hits": False}
        header = {"index": self._index, "allow_partial_search_results": False}
        searches = [line for body in bodies for line in (header, {**body, **common})]
        try:
            responses = self._client.msearch(searches=searches)["responses"]
        except Exception as error:
            raise failure(error, self.address) from None
        return [self._hits(response) for response in responses]

    def _hits(self, response: Any) -> list[Hit]:
        # Each search of an `_msearch` fails or succeeds by itself, under status 200 for the whole.
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
        return [Hit(to_passage(hit), hit["_score"]) for hit in response["hits"]["hits"]]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_elasticsearch(address: str, options: dict[str, Any]) -> ElasticsearchRetriever:
    """The index at an address; see `ElasticsearchRetriever`."""
    chosen: ElasticsearchOptions = check_options(ElasticsearchOptions, options, f"corpus {address!r}")
    return ElasticsearchRetriever(address, chosen)
