"""The data that moves between rollout, objective and trainer. Frozen; shapes and units in every docstring.

L is the length of a trajectory in tokens, C that of one completion, G the size of a group, T the tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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


@dataclass(frozen=True, slots=True)
class Completion:
    """One turn as sampled, e.g. ids `[5, 17, 2]`, logprobs `[-0.1, -1.2, 0.0]`, finish `"stop"`, version 3."""

    ids: Sequence[int]
    """`[C]` sampled token ids, the stop string's included."""
    logprobs: Sequence[float]
    """`[C]` nats, of each sampled token under the distribution it was sampled from."""
    finish: str
    """`"stop"` (a stop string or end of sequence) or `"length"`."""
    version: int
    """Version of the weights that sampled it."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode as token ids, e.g. a prompt of 2, a turn of 3 and a result of 2:

    ids `[9, 8, 5, 17, 2, 7, 7]`, mask `[F, F, T, T, T, F, F]`, logprobs `[0, 0, -0.1, -1.2, 0.0, 0, 0]`.
    """

    ids: np.ndarray
    """`[L]` int32."""
    mask: np.ndarray
    """`[L]` bool: True exactly on tokens that the policy sampled."""
    logprobs: np.ndarray
    """`[L]` float32 nats: behaviour log-probability where `mask` is True, 0.0 elsewhere."""
    reward: float
    """Sum of the environment's rewards; 0.0 where `status` is `"length"`."""
    status: str
    """`"terminated"`, `"truncated"` (by the environment) or `"length"` (the token budget ran out)."""
    seed: int
    """Reset seed of the episode: trajectories of a group share it."""
    versions: tuple[int, ...]
    """Weight version that sampled each turn."""
    info: dict[str, Any] = field(default_factory=dict)
    """The environment's last `info`."""
    text: tuple[tuple[str, str], ...] = ()
    """The episode for a reader: `(who, text)`, who is `prompt`, `policy` or `environment`."""


Group = list[Trajectory]
"""Trajectories of one question, `[G]`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Trajectories end to end, without padding, e.g. lengths `[7, 4]` give T = 11.

    Row t of `logprobs`, `advantages` and `mask` is about predicting `ids[t]`.
    """

    ids: np.ndarray
    """`[T]` int64."""
    lengths: np.ndarray
    """`[B]` int64, of each trajectory; they add up to T."""
    mask: np.ndarray
    """`[T]` bool: True where the loss is taken. Never on the first token of a trajectory."""
    logprobs: np.ndarray
    """`[T]` float32 nats, behaviour policy; 0.0 where `mask` is False."""
    advantages: np.ndarray
    """`[T]` float32; 0.0 where `mask` is False."""
    weights: np.ndarray
    """`[T]` float32: how many tokens each stands for, itself included; 0.0 where `mask` is False."""
