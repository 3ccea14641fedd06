"""Every number here was computed with the code that the learners had before their seeds moved into one file."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from learners import seeds
from learners.types import Play


@pytest.mark.parametrize(
    ("seed", "step", "expected"),
    [(0, 0, 1484405855), (0, 1, 1982462498), (1, 0, 917752063), (3, 134, 1591141482)],
)
def test_the_seed_of_a_step(seed: int, step: int, expected: int) -> None:
    assert seeds.sampling(seed, step) == expected


def test_steps_do_not_share_their_seeds() -> None:
    found = {seeds.sampling(seed, step) for seed in range(20) for step in range(100)}
    assert len(found) == 2_000
    assert all(0 <= seed < 2**31 for seed in found)


def test_a_training_step() -> None:
    """Seed 3, step 134, 48 questions a step: the first question is `3 * 1_000_003 + 134 * 48`."""
    first = seeds.first_question(3) + 134 * 48
    assert first == 3_006_441
    assert seeds.training(3, 134, first, prompts=2, group_size=2) == [
        Play(3_006_441, 0, 1_591_141_482),
        Play(3_006_441, 0, 1_591_142_482),
        Play(3_006_442, 1, 1_591_143_482),
        Play(3_006_442, 1, 1_591_144_482),
    ]


def test_replaced_groups_go_on_where_the_step_was() -> None:
    """No group number and no sampling seed comes twice in a step."""
    first = seeds.training(0, 1, 100, prompts=3, group_size=4)
    more = seeds.training(0, 1, 103, prompts=2, group_size=4, played=12)
    assert [play.seed for play in more] == [103] * 4 + [104] * 4
    assert [play.group for play in more] == [3] * 4 + [4] * 4
    assert more[0].sampling_seed == 1_982_462_498 + 12_000
    assert len({play.sampling_seed for play in first + more}) == 20


def test_an_evaluation() -> None:
    assert seeds.evaluation([7, 9, 4]) == [Play(7, 0, 0), Play(9, 1, 1_000), Play(4, 2, 2_000)]


def test_the_other_seeds() -> None:
    assert seeds.engine(5, 2) == 7
    assert seeds.turn(1_591_142_482, 3) == 1_591_142_485
    assert seeds.warm_start(2) == 2_000_006


@pytest.mark.parametrize("seed", [0, 1, 7, 2147, 2148, 123_456_789, 2**31 - 1])
def test_training_and_evaluation_never_meet(seed: int) -> None:
    """Every seed is one that NumPy takes, also where a run goes past the end of its half."""
    first = seeds.first_question(seed)
    for far in (0, 10_000_000, 2**31 - 3, 2**31 - first):
        plays = seeds.training(seed, 0, first + far, prompts=6, group_size=2)
        asked = [play.seed for play in plays[::2]]
        assert all(0 <= each < 2**31 for each in asked)
        assert len(set(asked)) == 6
        assert [(here + 1) % 2**31 for here in asked[:-1]] == asked[1:]
        assert 0 <= seeds.warm_start(seed, far) < 2**31
        assert 2**31 <= seeds.evaluation_question(far) < 2**32
    np.random.default_rng(seeds.evaluation_question(2**31 - 1))
    np.random.seed(seeds.evaluation_question(2**31 - 1))


def test_runs_of_different_seeds_begin_at_different_questions() -> None:
    starts = sorted(seeds.first_question(seed) for seed in range(50_000))
    assert min(there - here for here, there in pairwise(starts)) > 0


def test_what_a_training_asked() -> None:
    assert seeds.training_range(3, 6_480) == [3_000_009, 3_006_488]
    assert seeds.training_range(3, 0) == []
    first = seeds.first_question(2147)
    assert seeds.training_range(2147, 2**31 - first + 5) == [first, 4]  # it went on at 0
