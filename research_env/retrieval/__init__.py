"""Passages, and what it takes to find them.

`open_retriever(address, **options)` opens any retriever behind a `Gateway`; see `research_env.retrieval.addresses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from research_env.retrieval.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of retrieval, about 100 words, e.g. `Passage("p17", "Amber Kesh", "Amber Kesh is a novel …")`."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found by a search, with the score the retriever gave it (higher is better, no unit)."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is searched; goes with every result, so that two results can be told to be of the same corpus."""

    name: str
    passages: int
    hash: str | None
    """Of the content; of a data set's pool, of the files it comes from; None where a server does not tell."""


class Retriever(Protocol):
    """Finds passages. Thread-safe. Any string is a legal query."""

    corpus: Corpus
    settings: Mapping[str, Any]
    """What decides, besides the corpus, which passages are found; JSON."""
    max_batch: int
    """Queries that are worth one call. 1 is for what is computed here and waits for nobody: it is called on the thread
    of whoever asks."""
    concurrency: int
    """Calls that are worth making at once."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Best `top_k` hits of each query, best first; an empty list where nothing matches.

        Raises:
            RetrievalUnavailable: no answer now; the same search may succeed later.
            RetrievalError: the search could not be carried out.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class NoRetriever:
    """The corpus `"none"`: every search finds nothing. Shows what a policy knows by heart."""

    corpus = Corpus("none", 0, None)
    settings: Mapping[str, Any] = {}
    max_batch = 1
    concurrency = 1

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return [[] for _ in queries]

    def close(self) -> None:
        pass


def open_retriever(address: str, /, **options: Any) -> Gateway:
    """Open the retriever at `address`; see `research_env.retrieval.addresses` for addresses and options.

    Raises:
        ConfigurationError: the address or an option cannot work.
        RetrievalError: nothing usable answers there.
    """
    from research_env.retrieval.addresses import open_address

    return open_address(address, options)
