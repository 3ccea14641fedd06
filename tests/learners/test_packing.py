"""Packing loses and reorders nothing, keeps to the budget, and never trains on a first token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learners.packing import deal, pack, pack_to_score, unpack
from learners.types import Batch, Credit, Status, Trajectory, Turn


def trajectory(ids: list[int], mask: list[bool]) -> Trajectory:
    logprobs = np.where(mask, -np.asarray(ids, float) / 100, 0).astype(np.float32)
    sampled = np.array(mask, bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sampled, [False]])))
    turns = tuple(Turn(int(a), int(b), 0.0, (0,)) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return Trajectory(np.array(ids, np.int32), sampled, logprobs, turns, Status.TERMINATED, 0, 0)


def credited(trajectories: Sequence[Trajectory], advantages: Sequence[float], budget: int) -> list[Batch]:
    """Packed with one advantage for each trajectory."""
    credits = [Credit(np.full(len(t.ids), a, np.float32)) for t, a in zip(trajectories, advantages, strict=True)]
    return pack(trajectories, budget, credits)


def parts(batch: Batch) -> list[tuple[list[int], list[bool], list[float], list[float]]]:
    """The trajectories of a batch: ids, mask, log-probabilities, advantages."""
    columns = (batch.ids, batch.mask, batch.logprobs, batch.advantages)
    edges = np.cumsum(batch.lengths)[:-1]
    return [tuple(v.tolist() for v in row) for row in zip(*(np.split(c, edges) for c in columns), strict=True)]  # type: ignore[misc]


def test_two_trajectories_in_one_batch() -> None:
    first = trajectory([9, 8, 5, 17], [False, False, True, True])
    second = trajectory([3, 1], [False, True])
    (batch,) = credited([second, first], [-1.0, 2.0], 6)
    assert batch.ids.tolist() == [9, 8, 5, 17, 3, 1]
    assert batch.ids.dtype == np.int64
    assert batch.lengths.tolist() == [4, 2]
    assert batch.mask.tolist() == [False, False, True, True, False, True]
    assert batch.advantages.tolist() == [0.0, 0.0, 2.0, 2.0, 0.0, -1.0]
    np.testing.assert_allclose(batch.logprobs, [0, 0, -0.05, -0.17, 0, -0.01])


def test_one_token_over_the_budget_makes_a_second_batch() -> None:
    pair = [trajectory([1, 2, 3], [False, True, True]), trajectory([4, 5, 6], [False, True, True])]
    assert len(pack(pair, 6)) == 1
    assert [batch.lengths.tolist() for batch in pack(pair, 5)] == [[3], [3]]


def test_a_longer_trajectory_gets_a_batch_of_its_own() -> None:
    long, short = trajectory([1] * 9, [False] + [True] * 8), trajectory([2, 3], [False, True])
    assert [batch.lengths.tolist() for batch in pack([short, long], 4)] == [[9], [2]]


def test_a_first_token_is_never_trained_on() -> None:
    """Nothing comes before it that could predict it, and in a batch another trajectory's end would."""
    whole = trajectory([7, 8], [True, True])
    (batch,) = credited([whole, whole], [1.0, 1.0], 10)
    assert batch.mask.tolist() == [False, True, False, True]
    assert batch.advantages.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert whole.mask.all(), "packing changed the trajectory"


def test_nothing_makes_no_batch() -> None:
    assert pack([], 10) == []


masked_ids = st.lists(st.tuples(st.integers(1, 999), st.booleans()), min_size=1, max_size=12)


@given(st.lists(masked_ids, min_size=1, max_size=20), st.integers(1, 40))
def test_nothing_is_lost_or_reordered(episodes: list[list[tuple[int, bool]]], budget: int) -> None:
    trajectories = [
        trajectory([i for i, _ in pairs], [at > 0 and sampled for at, (_, sampled) in enumerate(pairs)])
        for pairs in episodes
    ]
    advantages = [float(number + 1) for number in range(len(trajectories))]
    batches = credited(trajectories, advantages, budget)
    found = Counter(str(part) for batch in batches for part in parts(batch))
    expected = Counter(
        str((t.ids.tolist(), t.mask.tolist(), t.logprobs.tolist(), [a if m else 0.0 for m in t.mask.tolist()]))
        for t, a in zip(trajectories, advantages, strict=True)
    )
    assert found == expected
    for batch in batches:
        assert len(batch.ids) == len(batch.mask) == len(batch.logprobs) == len(batch.advantages) == sum(batch.lengths)
        assert len(batch.ids) <= budget or len(batch.lengths) == 1


def test_batches_are_filled(make_trajectory: Callable[..., Trajectory]) -> None:
    """First fit over falling lengths needs at most 11/9 of the best number of batches, and here hits it."""
    lengths = [70, 30, 60, 40, 50, 50, 20, 80]
    batches = pack([make_trajectory(n, [(1, n)], seed=n) for n in lengths], 100)
    assert sorted(len(batch.ids) for batch in batches) == [100, 100, 100, 100]


def test_shares_and_columns_follow_their_trajectory_and_a_share_of_nothing_is_left_out() -> None:
    first = trajectory([9, 8, 5, 17], [False, False, True, True])
    second = trajectory([3, 1], [False, True])
    third = trajectory([4, 4, 4], [False, True, True])
    shares = [np.full(4, 0.25, np.float32), np.zeros(2, np.float32), np.full(3, 0.5, np.float32)]
    reference = [np.full(4, -1.0), np.full(2, -2.0), np.full(3, -3.0)]
    (batch,) = pack([first, second, third], 10, None, shares, {"reference": reference})
    assert batch.lengths.tolist() == [4, 3]
    assert batch.shares.tolist() == [0, 0, 0.25, 0.25, 0, 0.5, 0.5]
    assert batch.columns["reference"].tolist() == [0, 0, -1, -1, 0, -3, -3]


def test_tokens_know_their_turn() -> None:
    two_turns = trajectory([1, 2, 3, 4, 5, 6], [False, True, True, False, True, True])
    (batch,) = pack([two_turns], 10)
    assert batch.turns.tolist() == [0, 0, 0, 0, 1, 1]


def test_scores_find_their_way_back() -> None:
    """Whatever order the batches are filled in."""
    trajectories = [trajectory(list(range(1, n)), [False] + [True] * (n - 2)) for n in (4, 9, 3, 6)]
    members, batches = pack_to_score(trajectories, 9)
    found: dict[int, np.ndarray] = {}
    for some, batch in zip(members, batches, strict=True):
        found |= dict(unpack(some, batch, batch.ids.astype(np.float32)))
    assert [found[at].tolist() for at in range(4)] == [t.ids.tolist() for t in trajectories]


def test_ranks_get_as_many_batches_each() -> None:
    batches = pack([trajectory([1, 2, 3], [False, True, True]) for _ in range(3)], 3)
    one, two = deal(batches, 2)
    assert (len(one), len(two)) == (2, 2)
    assert not two[1].mask.any()
    assert two[1].shares.sum() == 0.0
    assert sum(int(batch.mask.sum()) for batch in one + two) == 6
