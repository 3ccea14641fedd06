"""What `reset` and `step` report beside the text: one shape, all of it JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class _Always(TypedDict):
    question_id: str
    question: str
    """The bare question, as the data set has it."""
    hops: int
    """How many facts the question needs."""
    place: int
    """Place of the question in the fixed order, from 0: `seed % num_questions`. A seed past the end begins again."""
    num_questions: int
    """How many questions there are with this split and these hop counts."""
    turn: int
    """Turns taken."""
    searches: int
    """Searches made."""
    corpus: Mapping[str, Any]
    """`name`, `passages` and `hash` of what is searched."""
    gold_known: bool
    """Whether the ids of the gold passages are ids of this corpus. Over another corpus than the set's own passages they
    are not: then `gold_found` and `evidence` are None, because nobody can tell what was found."""
    status: str
    """`"running"`, `"answered"`, `"malformed"`, `"out_of_searches"` or `"out_of_turns"`."""
    action: str | None
    """What the turn was: the name of the tool that it called, `"answer"` or `"malformed"`; None after `reset`."""
    cut: bool
    """Whether text after the turn's action was dropped."""
    malformed: str | None
    """What is wrong with a malformed turn; None where nothing is."""
    passages: list[dict[str, str]]
    """The passages that this turn brought, best first: `id`, `title` and `text`, as the corpus has them. What a policy
    reads of them, with tags neutralised, is in the observation and in `messages`."""
    passage_ids: list[str]
    """Their ids."""
    messages: list[dict[str, Any]]
    """What is new, as messages of a chat with `role`, `content` and `tool_calls`: the same words as the texts."""
    reward_parts: dict[str, float]
    """The reward of this step as `turn` (what the turn itself earned or cost) and `outcome` (what the answer did)."""


class Info(_Always, total=False):
    """`info`. The keys of this class itself are absent until the episode has ended, and then they are all there.

    Absent and not None, because a vector environment fills the number of one environment up with zeros for the others,
    and only its masks (`infos["_em"]`) tell which episodes have ended.
    """

    answer: str | None
    """The parsed answer; None where there was none."""
    em: float
    """Exact match, 0.0 or 1.0."""
    f1: float
    """F1, 0.0 to 1.0."""
    format_ok: bool
    """Whether every turn had exactly the protocol's form, and the last one answered."""
    golden_answers: list[str]
    """Answers that count as right."""
    gold_found: list[str] | None
    """Ids of the gold passages that were retrieved; None where `gold_known` is False."""
    evidence: list[dict[str, Any]] | None
    """For each hop `question`, `answer`, `passage_id` and `found_at`, the number of the search that brought it, None
    where none did. The whole is None where `gold_known` is False."""
    answer_in_context: bool
    """Whether a golden answer stood in a retrieved passage."""
