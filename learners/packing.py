"""Trajectories -> padding-free batches under a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learners.types import Batch, Trajectory


def pack(
    trajectories: Sequence[Trajectory],
    advantages: Sequence[float],
    max_tokens: int,
    weights: Sequence[float] | None = None,
) -> list[Batch]:
    """Fill batches of at most `max_tokens` tokens, longest trajectories first into the first batch with room.

    Args:
        trajectories: `[N]`.
        advantages: `[N]`, one for each trajectory; every sampled token of it gets it.
        max_tokens: Tokens a batch may hold. A longer trajectory gets a batch of its own.
        weights: `[N]`, how many trajectories each stands for; None is 1.0 for all.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(trajectories)), key=lambda i: -len(trajectories[i].ids)):
        length = len(trajectories[i].ids)
        at = next((b for b, left in enumerate(room) if left >= length), None)
        if at is None:
            bins.append([])
            room.append(max(max_tokens, length))
            at = len(bins) - 1
        bins[at].append(i)
        room[at] -= length
    weights = weights or [1.0] * len(trajectories)
    rows = list(zip(trajectories, advantages, weights, strict=True))
    return [_batch([rows[i] for i in chosen]) for chosen in bins]


def _batch(rows: Sequence[tuple[Trajectory, float, float]]) -> Batch:
    trajectories, advantages, weights = zip(*rows, strict=True)
    lengths = np.array([len(t.ids) for t in trajectories], np.int64)
    mask = np.concatenate([t.mask for t in trajectories])
    starts = np.cumsum(lengths) - lengths
    mask[starts] = False  # nothing comes before a first token that could predict it
    return Batch(
        ids=np.concatenate([t.ids for t in trajectories]).astype(np.int64),
        lengths=lengths,
        mask=mask,
        logprobs=np.concatenate([t.logprobs for t in trajectories]),
        advantages=np.repeat(np.asarray(advantages, np.float32), lengths) * mask,
        weights=np.repeat(np.asarray(weights, np.float32), lengths) * mask,
    )
