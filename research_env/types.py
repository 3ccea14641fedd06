"""The values that move through the gym: passages, questions, calls of tools, steps of an episode. All frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


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
    """What is searched, e.g. `Corpus("wiki-18", 21_015_324, "9f2c…")`. Every reported result names it."""

    name: str
    passages: int
    hash: str | None
    """Hash of the content; for a data set's pool, of the files it comes from; None where a server does not say."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a question's decomposition, e.g. `Hop("Who wrote Amber Kesh?", "Bram Tovik", "p17")`."""

    question: str
    answer: str
    passage_id: str
    """The gold passage: the one that contains the answer of this hop."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question with everything needed to score an episode on it. Only `text` is for the policy."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Golden answers and aliases; a prediction is scored against the best of them."""
    hops: int
    decomposition: tuple[Hop, ...] = ()
    """The hops in order; empty where the data set has none."""
    gold_passages: tuple[str, ...] = ()
    """Ids of the passages needed, in hop order where the order is known."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The passages that come with a data set: its default corpus."""

    name: str
    """Name of the corpus; the data set's."""
    fingerprint: str
    """Hash of everything the passages are made from. The pool's index is cached under it."""
    passages: Callable[[], Iterable[Passage]]
    """A fresh pass over the passages, each once. Lazy, because most processes find the index already built."""
    count: Callable[[], int]
    """Number of passages. Lazy, because it may take a pass over every file."""

    def corpus(self) -> Corpus:
        """The pool as a corpus."""
        return Corpus(self.name, self.count(), self.fingerprint)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set: its questions by split, and the passages that come with them."""

    name: str
    splits: Mapping[str, Sequence[Question]]
    """Split name -> questions, in file order. Only the splits that are present; each is read when it is asked for."""
    pool: Pool | None
    """None where the data set has no passages of its own: `corpus=` must then name what is searched."""


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a tool that the policy asks for, e.g. `Call("1", "search", {"query": "Amber Kesh"})`."""

    id: str
    """Tells the calls of one turn apart."""
    tool: str
    arguments: Mapping[str, Any]
    fault: str = ""
    """Why the call cannot be run, as one clause for the policy; empty for a good call."""


# The records that are made at every step are named tuples: as frozen as the others, and twice as fast to make.
class Result(NamedTuple):
    """The result of a call: text, or passages, or an error.

    `Result(call, passages=(…,))` is a search, and with no passage in it a search that found nothing;
    `Result(call, text="42")` is any other tool, and also a tool's own "not found".
    """

    call: Call
    text: str = ""
    passages: tuple[Passage, ...] | None = None
    """Passages found, best first; None for a tool that returns text."""
    error: Exception | None = None
    """An outage. It is raised to the code that steps the episode and is never text for the policy."""


class Status(StrEnum):
    """Where an episode stands. It ends because of one of these, never because a text is empty."""

    RUNNING = "running"
    ANSWERED = "answered"
    MALFORMED = "malformed"
    """A malformed turn ended the episode."""
    OUT_OF_SEARCHES = "out_of_searches"
    """The policy asked for more searches than it had left."""
    OUT_OF_TURNS = "out_of_turns"
    """The last turn did not answer."""

    @property
    def terminated(self) -> bool:
        """Gymnasium's `terminated`: the policy's own turn ended the episode."""
        return self in (Status.ANSWERED, Status.MALFORMED)

    @property
    def truncated(self) -> bool:
        """Gymnasium's `truncated`: a budget ended the episode."""
        return self in (Status.OUT_OF_SEARCHES, Status.OUT_OF_TURNS)


class Step(NamedTuple):
    """What one turn of the policy leads to."""

    observation: str
    """Only the text that is new to the policy; empty once the episode has ended."""
    reward: float
    status: Status
    info: Any
    """`research_env.info.Info`."""
