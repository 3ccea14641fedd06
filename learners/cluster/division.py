"""How work is divided over engines and trainers, and put together again. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from learners.packing import deal, pack_to_score, unpack
from learners.rollout import Rollout
from learners.types import Batch, Play, Trajectory

Columns = dict[str, np.ndarray]
"""Name -> `[T]` nats, of one batch."""


OF_THE_WHOLE = ("gradient_norm", "skipped")
"""Metrics of a step that every rank knows for the whole update."""


def plays_of_workers(plays: Sequence[Play], workers: int) -> list[list[Play]]:
    """The plays of each worker: whole groups in order, divided as evenly as possible.

    A group's prompt is computed once by an engine that caches prefixes, so a group stays together.
    """
    groups: dict[int, list[Play]] = {}
    for play in plays:
        groups.setdefault(play.group, []).append(play)
    whole = list(groups.values())
    edges = [worker * len(whole) // workers for worker in range(workers + 1)]
    return [[play for group in whole[edges[i] : edges[i + 1]] for play in group] for i in range(workers)]


def merge_rollouts(parts: Sequence[Rollout]) -> Rollout:
    """The rollouts of several workers as one, in their order; none of it is worn, as its workers are replaced."""
    return Rollout(
        [trajectory for part in parts for trajectory in part.trajectories],
        retried=sum(part.retried for part in parts),
        dropped=sum(part.dropped for part in parts),
        lost=sum(part.lost for part in parts),
        reason=next((part.reason for part in parts if part.reason), ""),
    )


def score(
    trajectories: Sequence[Trajectory], wanted: frozenset[str], max_tokens: int, ranks: int,
    run: Callable[[list[list[Batch]]], Sequence[Sequence[Columns]]],
) -> dict[str, list[np.ndarray]]:  # fmt: skip
    """Score trajectories on several trainers; see `Cluster.score`.

    Args:
        trajectories: `[N]`.
        wanted: Names of the scores.
        max_tokens: Tokens a batch may hold.
        ranks: Trainers.
        run: The batches of each rank -> the columns of each batch of each rank.
    """
    found: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.float32)] * len(trajectories) for name in wanted}
    if not trajectories or not wanted:
        return found
    members, batches = pack_to_score(trajectories, max_tokens)
    parts = run(deal(batches, ranks))
    for number, (some, batch) in enumerate(zip(members, batches, strict=True)):
        # `deal` gives out the batches in turn, and adds empty ones at the end, which are not read here.
        columns = parts[number % ranks][number // ranks]
        for name in wanted:
            for at, values in unpack(some, batch, columns[name]):
                found[name][at] = values.astype(np.float32, copy=False)
    return found


def merge_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a step from those of the ranks, `[R]`: each rank has its part of the sum.

    Those of `OF_THE_WHOLE` are not parts of a sum: every rank has that of the whole update.
    """
    return {
        name: value if name in OF_THE_WHOLE else sum(part[name] for part in parts) for name, value in parts[0].items()
    }
