"""Scores of an answer (EM, F1) and the rewards made of them.

EM and F1 follow the official evaluation scripts of SQuAD and HotpotQA, as the papers on search agents do, but for
golden answers that normalisation leaves empty, such as `A`, `*` or the band `The The`. There SQuAD's script gives EM 1
to any other answer that is left empty, `?` too, and HotpotQA's gives the right answer F1 0. Here such an answer is
compared in lower case with its white space collapsed: both scores are 1 where that is equal, else 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from research_env.text import normalize_answer

_VERDICTS = frozenset({"yes", "no", "noanswer"})


def exact_match(prediction: str, golden_answers: Sequence[str]) -> float:
    """1.0 where the prediction equals one of the golden answers after normalisation, else 0.0; see the top of the file.

    Raises:
        TypeError: `golden_answers` is a bare string.
        ValueError: there is no golden answer.
    """
    _check(golden_answers)
    normal = normalize_answer(prediction)
    return float(any(_equal(prediction, normal, golden, _golden(golden)[0]) for golden in golden_answers))


def f1(prediction: str, golden_answers: Sequence[str]) -> float:
    """Best F1 over the golden answers, in [0, 1]: words of the prediction against words of the answer, as multisets.

    HotpotQA's rule: where one side is yes, no or noanswer and the other is not the same, it is 0.0.

    Raises:
        TypeError: `golden_answers` is a bare string.
        ValueError: there is no golden answer.
    """
    _check(golden_answers)
    normal = normalize_answer(prediction)
    words = Counter(normal.split())
    scores = (
        _f1(normal, words, *found) if (found := _golden(golden))[0] else float(_equal(prediction, normal, golden, ""))
        for golden in golden_answers
    )
    return max(scores)


def _equal(prediction: str, normal: str, golden: str, golden_normal: str) -> bool:
    if golden_normal:
        return normal == golden_normal
    return prediction.lower().split() == golden.lower().split()


def _f1(normal: str, words: Counter[str], golden: str, golden_words: Counter[str]) -> float:
    if normal != golden and (normal in _VERDICTS or golden in _VERDICTS):
        return 0.0
    shared = (words & golden_words).total()
    if not shared:
        return 0.0
    precision = shared / words.total()
    recall = shared / golden_words.total()
    return 2 * precision * recall / (precision + recall)


# Each question is asked many times (a group of rollouts, several epochs), and some have a hundred aliases.
@lru_cache(maxsize=16_384)
def _golden(answer: str) -> tuple[str, Counter[str]]:
    """Normalised golden answer and its words. The counter is shared: read it only."""
    normal = normalize_answer(answer)
    return normal, Counter(normal.split())


def _check(golden_answers: Sequence[str]) -> None:
    if isinstance(golden_answers, str):
        raise TypeError(f"golden_answers={golden_answers!r} is one string: write [{golden_answers!r}]")
    if not golden_answers:
        raise ValueError(f"golden_answers={golden_answers!r}: at least one answer is needed to score against")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reward may look at when an episode has ended, e.g. `Outcome("Bram Tovik", 1.0, 1.0, True, False)`."""

    answer: str | None
    """The parsed answer; None where the episode ended without one."""
    em: float
    """Exact match, 0.0 or 1.0."""
    f1: float
    """F1, in [0, 1]."""
    format_ok: bool
    """Every turn had exactly the protocol's form, and the last one answered."""
    over_length: bool
    """A limit (searches, turns, tokens) ended the episode."""


def research(outcome: Outcome) -> float:
    """The paper's reward (arXiv 2503.19470): 0 for a wrong form or over length, else F1, or 0.1 where that is 0."""
    if outcome.answer is None or not outcome.format_ok or outcome.over_length:
        return 0.0
    return outcome.f1 if outcome.f1 > 0 else 0.1


def em(outcome: Outcome) -> float:
    """Exact match."""
    return outcome.em


def f1_reward(outcome: Outcome) -> float:
    """F1, whatever the form."""
    return outcome.f1


REWARDS: dict[str, str] = {
    "em": "research_env.rewards:em",
    "f1": "research_env.rewards:f1_reward",
    "research": "research_env.rewards:research",
}
"""Reward name -> `module:function` of an `Outcome`, the end of an episode, to a number."""
