"""Questions and the data sets they come from.

A data set is one module with a function `load(**options) -> Dataset`; `DATASETS` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from research_env.retrieval import Passage


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a question's decomposition, e.g. `Hop("Who wrote Amber Kesh?", "Bram Tovik", "p17")`."""

    question: str
    answer: str
    passage_id: str
    """The gold passage: the one in which the answer of this hop stands."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question with everything needed to score an episode on it. Nothing but `text` is for the policy."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Golden answers and aliases; a prediction is scored against the best of them."""
    hops: int
    decomposition: tuple[Hop, ...] = ()
    """The hops in order; empty where the data set has none."""
    gold_passages: tuple[str, ...] = ()
    """Ids of the passages needed, in hop order where the order is known."""


@dataclass(frozen=True)
class Dataset:
    """A loaded data set: its questions by split, and the pool of passages that is its default corpus."""

    name: str
    splits: Mapping[str, Sequence[Question]]
    """Split name -> questions, in file order. Only splits that are present. Use `select` to keep hop counts."""
    passages: Callable[[], Iterable[Passage]]
    """A fresh pass over the de-duplicated pool; lazy, because most processes find the index already built."""
    num_passages: int
    fingerprint: str
    """Hash of everything the pool is made from: the name under which its index is cached."""


DATASETS: dict[str, str] = {
    "musique": "research_env.questions.musique:load",
    "synthetic": "research_env.synthetic:load",
}
"""Data set name -> `module:function`, imported when first used."""


def select(questions: Sequence[Question], hops: Sequence[int]) -> Sequence[Question]:
    """The questions with these hop counts. A lazy sequence may answer for itself with a method `with_hops`."""
    with_hops = getattr(questions, "with_hops", None)
    if with_hops is not None:
        return with_hops(hops)
    return [question for question in questions if question.hops in hops]
