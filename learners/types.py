"""The data that moves between rollout, algorithm and trainer. Frozen; shapes and units in every docstring.

L is the length of a trajectory in tokens, C that of one completion, G the size of a group, T the tokens of a batch,
N the trained tokens among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine samples one completion."""

    temperature: float
    """0.0 is greedy."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    """Strings that end a completion and belong to it; the end-of-sequence token ends it too."""
    seed: int | None = None
    """Seed of this one completion; None draws from the engine's own stream."""

    def __post_init__(self) -> None:
        # "" is in every text, and a text is a sequence of texts.
        stop: object = self.stop
        if isinstance(stop, str) or "" in self.stop:
            raise ValueError(f"stop strings {stop!r}: give a tuple of texts, none of them empty")


@dataclass(frozen=True, slots=True)
class Completion:
    """One turn as sampled, e.g. ids `[5, 17, 2]`, logprobs `[-0.1, -1.2, 0.0]`, finish `"stop"`, version 3."""

    ids: Sequence[int]
    """`[C]` sampled token ids, the stop string's included."""
    logprobs: Sequence[float]
    """`[C]` nats, of each sampled token under the distribution it was sampled from."""
    finish: str
    """`"stop"` (a stop string or end of sequence, also as the last token that fits) or `"length"` (cut off)."""
    version: int
    """Version of the weights that sampled it."""


@dataclass(frozen=True, slots=True)
class Play:
    """One episode to be played, e.g. `Play(seed=96, group=0, sampling_seed=77_000)`."""

    seed: int
    """Reset seed of the environment: which question."""
    group: int
    """Number of the group; the plays of one group share question and group."""
    sampling_seed: int
    """Seed of the episode's first turn; turn t samples with `sampling_seed + t`."""


class Status(StrEnum):
    """How an episode ended."""

    TERMINATED = "terminated"
    """The environment ended it."""
    TRUNCATED = "truncated"
    """The environment cut it off at a budget of its own."""
    LENGTH = "length"
    """A token budget of the learner ran out: in the middle of a turn, which the environment then did not see, or with
    no room for a further turn."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the policy within a trajectory, e.g. `Turn(2, 5, 0.0, (3,), {"searches": 1})` for ids 2, 3 and 4."""

    start: int
    """Position of its first token in the trajectory."""
    stop: int
    """Position after its last token."""
    reward: float
    """What the environment gave for this turn; 0.0 where a token budget cut the turn off."""
    versions: tuple[int, ...]
    """Versions of the weights that sampled it; more than one where new weights came in the middle."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """The environment's `info` after the turn, as JSON has it; see `learners.contract`. Empty where a token budget cut
    the turn off."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode as token ids, e.g. a prompt of 2, a turn of 3 and a result of 2:

    ids `[9, 8, 5, 17, 2, 7, 7]`, mask `[F, F, T, T, T, F, F]`, logprobs `[0, 0, -0.1, -1.2, 0.0, 0, 0]`,
    turns `(Turn(2, 5, …),)`.
    """

    ids: np.ndarray
    """`[L]` int32."""
    mask: np.ndarray
    """`[L]` bool: True exactly on tokens that the policy sampled."""
    logprobs: np.ndarray
    """`[L]` float32 nats: behaviour log-probability where `mask` is True, 0.0 elsewhere."""
    turns: tuple[Turn, ...]
    """In order. Their spans cover exactly the tokens where `mask` is True."""
    status: Status
    seed: int
    """Reset seed of the episode."""
    group: int
    """Number of its group: trajectories of one question in one step share it."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """The environment's last `info`."""
    text: tuple[tuple[str, str], ...] = ()
    """The episode for a reader: `(who, text)`, who is `prompt`, `policy` or `environment`."""

    @property
    def reward(self) -> float:
        """The episode's return: the sum of its turns' rewards. A turn that a token budget cut off has none, so an
        episode that ends this way has what its earlier turns were given, e.g. the cost of their searches."""
        return float(sum(turn.reward for turn in self.turns))

    @property
    def versions(self) -> tuple[int, ...]:
        """Weight versions that sampled it, turn by turn."""
        return tuple(version for turn in self.turns for version in turn.versions)


Group = Sequence[Trajectory]
"""Trajectories of one question, `[G]`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An extra sequence whose likelihood an algorithm asks for, e.g. the golden answer after the second search."""

    prefix: Sequence[int]
    """`[P]` ids, at least one."""
    target: Sequence[int]
    """`[A]` ids. The score of each is its log-probability under the policy, given everything before it."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the trainer computed for an algorithm before credit is given; None where it was not asked for.

    The sequences are in the order of the step's trajectories, group by group.
    """

    old: Sequence[np.ndarray] | None = None
    """`[L]` nats each: the trainer's own log-probabilities at the start of the step; 0.0 where the mask is False."""
    reference: Sequence[np.ndarray] | None = None
    """`[L]` nats each: the same under the reference policy."""
    values: Sequence[np.ndarray] | None = None
    """`[L]` each: of a value function at the start of the step. No trainer here has one yet."""
    probes: Sequence[np.ndarray] | None = None
    """`[A]` nats each, of the targets of the probes, in the order in which the algorithm listed them."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What an algorithm makes of one trajectory's rewards."""

    advantages: np.ndarray
    """`[L]` float32; read where the mask is True."""
    returns: np.ndarray | None = None
    """`[L]` float32: targets of a value function."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Trajectories end to end, without padding, e.g. lengths `[7, 4]` give T = 11.

    Row t of every column is about predicting `ids[t]`, and is 0 where `mask` is False. A trajectory is whole in one
    batch, so a loss may sum over a sequence.
    """

    ids: np.ndarray
    """`[T]` int64."""
    lengths: np.ndarray
    """`[B]` int64, of each trajectory; they add up to T."""
    mask: np.ndarray
    """`[T]` bool: True where the loss is taken. Never on the first token of a trajectory."""
    turns: np.ndarray
    """`[T]` int64: number of the turn within its trajectory, from 0."""
    logprobs: np.ndarray
    """`[T]` float32 nats, behaviour policy."""
    advantages: np.ndarray
    """`[T]` float32."""
    shares: np.ndarray
    """`[T]` float32: weight of the token in the objective of the update."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """`[T]` float32 each: `old`, `reference`, `returns`, as far as they were asked for."""


@dataclass(frozen=True, slots=True)
class TokenInputs:
    """What a loss or a term may look at: the N trained tokens of a batch, as `[N]` tensors on the trainer's device."""

    logprobs: Tensor
    """Nats, under the policy in training; has the gradient."""
    behaviour: Tensor
    """Nats, under the policy that sampled the tokens, as the engine reported them."""
    advantages: Tensor
    sequence: Tensor
    """int64: number of the trajectory within the batch, from 0. A trajectory never spans two batches."""
    turn: Tensor
    """int64: number of the turn within the trajectory, from 0."""
    old: Tensor | None = None
    """Nats, as `Scores.old`."""
    reference: Tensor | None = None
    """Nats, as `Scores.reference`."""
    returns: Tensor | None = None
    values: Tensor | None = None
    """Of the value function in training; has the gradient."""
    old_values: Tensor | None = None
    """Of the value function at the start of the step."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss, token by token; the trainer adds it up, weighted by the tokens' shares."""

    per_token: Tensor
    """`[N]`."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """`[N]` each, detached or not; reported as means weighted by share."""
