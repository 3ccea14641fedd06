"""Several rankings fused into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from research_env.retrieval.base import Retriever
from research_env.types import Corpus, Hit, Passage

RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher, "Reciprocal rank fusion" (SIGIR 2009)."""


def fusion_depth(top_k: int) -> int:
    """How deep each ranking is read to fuse `top_k`: a passage just below the top of both must still be seen."""
    return max(50, 4 * top_k)


def reciprocal_rank(rankings: Sequence[Sequence[Hit]], top_k: int) -> list[Hit]:
    """Fuse rankings of one query: a passage's score is the sum of `1 / (60 + rank)` over the rankings it is in.

    Args:
        rankings: Best first; ranks count from 1.
        top_k: Hits to return; of equals, the one that an earlier ranking has higher comes first.
    """
    scores: dict[str, float] = {}
    passages: dict[str, Passage] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit.passage.id] = scores.get(hit.passage.id, 0.0) + 1.0 / (RRF_K + rank)
            passages.setdefault(hit.passage.id, hit.passage)
    # `sorted` is stable and `scores` is in the order of first sight, which decides between equals.
    best = sorted(scores, key=lambda ident: -scores[ident])[:top_k]
    return [Hit(passages[ident], scores[ident]) for ident in best]


class Hybrid:
    """Two retrievers over one corpus, asked at once and fused by reciprocal rank."""

    def __init__(self, first: Retriever, second: Retriever) -> None:
        self._parts = (first, second)
        self.corpus: Corpus = first.corpus
        self.settings: Mapping[str, Any] = {"rrf": [dict(first.settings), dict(second.settings)], "k": RRF_K}
        self.max_batch = max(first.max_batch, second.max_batch)
        self.concurrency = min(first.concurrency, second.concurrency)
        # Each search needs two of these threads; with fewer, two searches at once would wait for each other.
        self._threads = ThreadPoolExecutor(2 * self.concurrency, thread_name_prefix="hybrid")

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        depth = fusion_depth(top_k)
        found = list(self._threads.map(lambda part: part.search(queries, depth), self._parts))
        return [reciprocal_rank(rankings, top_k) for rankings in zip(*found, strict=True)]

    def close(self) -> None:
        """Close both."""
        self._threads.shutdown(wait=False)
        for part in self._parts:
            part.close()
