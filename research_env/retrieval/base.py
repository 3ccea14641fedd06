"""What every retriever is, and the one that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from research_env.types import Corpus, Hit


class Retriever(Protocol):
    """Finds passages. Thread-safe. Any string is a legal query."""

    corpus: Corpus
    settings: Mapping[str, Any]
    """Everything besides the corpus that decides which passages are found; JSON."""
    max_batch: int
    """The most queries of one call. 1 is for a retriever that computes in this process and waits for no server: it is
    called on the caller's own thread."""
    concurrency: int
    """The most calls at once."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Best `top_k` hits of each query, best first; an empty list where nothing matches.

        Raises:
            RetrievalUnavailable: no answer now; the same search may succeed later.
            RetrievalError: the search could not be carried out.
        """
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


# Checked by name, because the class of somebody else's retriever need not be derived from `Retriever`.
NEEDS = ("corpus", "settings", "max_batch", "concurrency", "search", "close")
"""What a retriever must have; somebody else's is checked for it when it is opened."""


class NoRetriever:
    """The corpus `"none"`: every search finds nothing. It shows what a policy knows without searching."""

    corpus = Corpus("none", 0, None)
    settings: Mapping[str, Any] = {}
    max_batch = 1
    concurrency = 1

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return [[] for _ in queries]

    def close(self) -> None:
        pass
