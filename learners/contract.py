"""What a learner may read of an environment beyond gymnasium's interface. All of it is optional.

An environment says more about itself in `metadata`, and about an episode in `info`. A learner never asks which
environment it has: it reads the keys below where they are there, and does without them where they are not. A test
compares these keys with what the code of the learners reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Metadata(TypedDict, total=False):
    """Keys of `env.metadata`. The environment may set them when it is made; they do not change afterwards."""

    stop: Sequence[str]
    """Strings that end a turn and belong to it, e.g. `["</search>", "</answer>"]`; a text alone is one string. The
    engine stops at the first; an environment without them gets turns that end with the model's own end token. A turn
    that a token budget cuts off is not stepped."""
    corpus: Any
    """What is searched, as JSON, e.g. a name and a hash of its content. It goes into `summary.json`."""
    tools: Sequence[Mapping[str, Any]]
    """JSON schemas of the tools, for models that are told about tools in their chat template."""


class RewardParts(TypedDict, total=False):
    """One step's reward in parts; they add up to it."""

    turn: float
    """For the turn as such, e.g. -0.05 as the cost of its search."""
    outcome: float
    """For how the episode ended, e.g. 1.0 for the right answer; 0.0 until then."""


class Message(TypedDict, total=False):
    """What is new, for models that use chat messages."""

    role: str
    """`"user"`, `"assistant"` or `"tool"`."""
    content: str
    tool_calls: Sequence[Mapping[str, Any]]
    """Calls that the policy made, in the shape of the chat-completions interface."""


class Info(TypedDict, total=False):
    """Keys of `info`, as `reset` and `step` return it. `None` means the same as a key that is not there."""

    # From `reset` on: which question it is.
    question_id: str
    """Identity of the question, in all splits. Evaluation never counts the same question twice, and the summary says
    how many of its questions were trained on; without it, seeds are questions."""
    hops: int | str
    """Group of the question, by which evaluation and metrics are kept apart, e.g. the number of its hops."""
    place: int
    """Place of the question in the environment's order. No metric, though it is a number; nor are the next two."""
    num_questions: int
    """How many questions there are."""
    gold_known: bool
    """Whether the environment can tell, in the corpus that is searched, what evidence was found."""

    # After each turn.
    searches: int
    """Searches that the episode has made so far. A metric."""
    messages: Sequence[Message]
    """What the observation says, as messages: for renderers. It is left out of trajectories, whose text has it."""
    passages: Sequence[Mapping[str, str]]
    """What was found, with titles and texts. It is left out of trajectories, too."""
    reward_parts: RewardParts
    """The reward of this step in its parts, for algorithms that treat them differently."""
    status: str
    """Where the episode stands, by the environment's own name, e.g. `"running"`, `"answered"`, `"out_of_turns"`."""

    # When the episode has ended. Nothing of this may be there earlier: it could tell the policy the answer.
    em: float
    """Exact match of the answer, 0.0 or 1.0. A metric; without it, people are shown the reward, the length and every
    other number that the environment reports when an episode ends."""
    f1: float
    """Overlap of the answer's words with a golden answer's, 0.0 to 1.0. A metric."""
    format_ok: bool
    """Whether every turn was well formed and the episode ended with an answer. A metric."""
    golden_answers: Sequence[str]
    """Answers that count as right, for the transcripts that people read."""


NOT_KEPT = frozenset({"messages", "passages"})
"""Keys of `info` that a trajectory does not keep: the same words are in its text."""
