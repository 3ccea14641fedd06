"""Trajectories -> padding-free batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from learners.types import Batch, Credit, Trajectory


def bins(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which sequences go together: the longest first, each into the first bin with room for it.

    Args:
        lengths: `[N]` tokens each.
        max_tokens: Tokens a bin may hold. A longer sequence gets a bin of its own.
    """
    members: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((b for b, left in enumerate(room) if left >= lengths[i]), None)
        if at is None:
            members.append([])
            room.append(max(max_tokens, lengths[i]))
            at = len(members) - 1
        members[at].append(i)
        room[at] -= lengths[i]
    return members


def pack(
    trajectories: Sequence[Trajectory],
    max_tokens: int,
    credits: Sequence[Credit] | None = None,
    shares: Sequence[np.ndarray] | None = None,
    columns: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> list[Batch]:
    """Fill batches of at most `max_tokens` tokens (see `bins`).

    Args:
        trajectories: `[N]`. One whose share is 0 everywhere is left out.
        max_tokens: Tokens a batch may hold.
        credits: `[N]`; None is an advantage of 0.0 everywhere.
        shares: `[N]` arrays `[L]`; None is 1.0 for every sampled token.
        columns: Name -> `[N]` arrays `[L]`: what else a loss looks at, e.g. `reference`.
    """
    kept = [i for i in range(len(trajectories)) if shares is None or shares[i].any()]
    packed = bins([len(trajectories[i].ids) for i in kept], max_tokens)
    return [_batch([kept[at] for at in members], trajectories, credits, shares, columns or {}) for members in packed]


def pack_to_score(trajectories: Sequence[Trajectory], max_tokens: int) -> tuple[list[list[int]], list[Batch]]:
    """Batches of trajectories whose tokens are to be scored, and the trajectories in each; `unpack` undoes it."""
    members = bins([len(t.ids) for t in trajectories], max_tokens)
    return members, [_batch(some, trajectories, None, None, {}) for some in members]


def unpack(members: Sequence[int], batch: Batch, column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """`(trajectory, [L])` for each part of a column `[T]` of a batch made by `pack_to_score`."""
    edges = np.cumsum(batch.lengths)[:-1]
    return zip(members, np.split(column, edges), strict=True)


def _batch(
    chosen: Sequence[int], trajectories: Sequence[Trajectory], credits: Sequence[Credit] | None,
    shares: Sequence[np.ndarray] | None, columns: Mapping[str, Sequence[np.ndarray]],
) -> Batch:  # fmt: skip
    rows = [trajectories[i] for i in chosen]
    lengths = np.array([len(t.ids) for t in rows], np.int64)
    mask = np.concatenate([t.mask for t in rows])
    # Nothing comes before a first token that could predict it, and in a batch another trajectory's end would.
    mask[np.cumsum(lengths) - lengths] = False
    masked = mask.astype(np.float32)

    def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([parts[i] for i in chosen]).astype(np.float32) * masked

    more = {name: joined(parts) for name, parts in columns.items()}
    if credits is not None and credits[chosen[0]].returns is not None:
        more["returns"] = joined([credit.returns for credit in credits])  # type: ignore[misc]
    return Batch(
        ids=np.concatenate([t.ids for t in rows]).astype(np.int64),
        lengths=lengths,
        mask=mask,
        turns=np.concatenate([turn_numbers(t) for t in rows]) * mask,
        logprobs=np.concatenate([t.logprobs for t in rows]) * masked,
        advantages=masked * 0 if credits is None else joined([credit.advantages for credit in credits]),
        shares=masked if shares is None else joined(shares),
        columns=more,
    )


def turn_numbers(trajectory: Trajectory) -> np.ndarray:
    """`[L]` int64: number of the turn that each sampled token belongs to, 0 elsewhere."""
    numbers = np.zeros(len(trajectory.ids), np.int64)
    for number, turn in enumerate(trajectory.turns):
        numbers[turn.start : turn.stop] = number
    return numbers


def emptied(batch: Batch) -> Batch:
    """The first trajectory of a batch, with a mask that is False everywhere: nothing is learned from it."""
    size = int(batch.lengths[0])
    nothing = np.zeros(size, np.float32)
    return Batch(
        batch.ids[:size], batch.lengths[:1], np.zeros(size, bool), np.zeros(size, np.int64), nothing, nothing, nothing,
        dict.fromkeys(batch.columns, nothing),
    )  # fmt: skip


def deal(batches: Sequence[Batch], ranks: int) -> list[list[Batch]]:
    """The batches of each rank: as many for each, so the ranks that have fewer are given empty ones."""
    dealt = [list(batches[rank::ranks]) for rank in range(ranks)]
    for own in dealt:
        own += [emptied(batches[-1])] * (len(dealt[0]) - len(own))
    return dealt
