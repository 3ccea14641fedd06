"""What crosses the boundary between the loop and its actors, and how work is divided over them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

from learners import seeds
from learners.cluster import division
from learners.types import Batch, Play, Trajectory


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_plays_of_one_group_stay_together(workers: int) -> None:
    plays = seeds.training(0, 0, 0, prompts=5, group_size=3)
    parts = division.plays_of_workers(plays, workers)
    assert len(parts) == workers
    assert [play for part in parts for play in part] == plays
    whole = [[len(list(group)) for _, group in groupby(part, key=lambda play: play.group)] for part in parts]
    assert all(size == 3 for sizes in whole for size in sizes)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1


def test_an_evaluation_is_divided_evenly() -> None:
    parts = division.plays_of_workers(seeds.evaluation(range(10)), 2)
    assert [[play.seed for play in part] for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert division.plays_of_workers([Play(1, 0, 0)], 3) == [[], [], [Play(1, 0, 0)]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_scores_come_back_to_their_trajectories(make_trajectory: Callable[..., Trajectory], ranks: int) -> None:
    """Over several ranks, the last of which has less to do, each token gets what was computed for it."""
    lengths = [40, 13, 25, 33, 8, 21, 60]
    trajectories = [make_trajectory(length, [(2, 5), (6, length)], seed=length) for length in lengths]
    calls = []

    def run(of_ranks: list[list[Batch]]) -> list[list[division.Columns]]:
        calls.append([len(batches) for batches in of_ranks])
        return [
            [{"old": b.ids * b.mask * 1.0, "reference": b.ids * b.mask * -2.0} for b in batches] for batches in of_ranks
        ]

    found = division.score(trajectories, frozenset({"old", "reference"}), 45, ranks, run)
    assert len(calls) == 1
    assert len(set(calls[0])) == 1, "every rank runs as many batches, or they would wait for each other"
    assert set(found) == {"old", "reference"}
    for trajectory, old, reference in zip(trajectories, found["old"], found["reference"], strict=True):
        np.testing.assert_array_equal(old, trajectory.ids * trajectory.mask)
        np.testing.assert_array_equal(reference, old * -2)
        assert old.dtype == np.float32


def test_nothing_is_run_where_there_is_nothing_to_score() -> None:
    def run(of_ranks: list[list[Batch]]) -> list[list[division.Columns]]:
        raise AssertionError

    assert division.score([], frozenset({"old"}), 45, 2, run) == {"old": []}


def test_metrics_of_ranks_add_up_but_for_those_of_the_whole() -> None:
    parts = [{"loss": 0.25, "gradient_norm": 3.0, "skipped": 1.0}, {"loss": 0.5, "gradient_norm": 3.0, "skipped": 1.0}]
    assert division.merge_metrics(parts) == {"loss": 0.75, "gradient_norm": 3.0, "skipped": 1.0}
