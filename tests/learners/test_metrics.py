"""Means by hop count, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learners.metrics import by_hops, group_of
from learners.transcript import Transcript
from learners.types import Completion, Status, Trajectory


def episode(info: dict[str, Any], *rewards: float) -> Trajectory:
    transcript = Transcript([1])
    for reward in rewards:
        transcript.act(Completion([2], [-0.5], "stop", 0), reward, info)
    return transcript.finish(status=Status.TERMINATED, seed=0, info=info)


def test_means_by_hop_count() -> None:
    trajectories = [
        episode({"hops": 2, "em": 1.0, "searches": 3, "format_ok": True}, 0.7),
        episode({"hops": 1, "em": 0.0, "searches": 1, "format_ok": True}, 0.0),
        episode({"hops": 2, "em": 0.0, "searches": 2, "format_ok": False}, 0.1),
        episode({"hops": 2, "em": 0.0, "searches": 1, "format_ok": True}, 0.1),
    ]
    result = by_hops(trajectories)
    assert list(result["em"]) == ["1", "2"]
    assert result["em"] == {"1": 0.0, "2": pytest.approx(1 / 3)}
    assert result["searches"] == {"1": 1.0, "2": 2.0}
    assert result["format_ok"] == {"1": 1.0, "2": pytest.approx(2 / 3)}
    assert result["questions"] == {"1": 1, "2": 3}


def test_an_episode_cut_off_by_the_token_budget_scores_nothing() -> None:
    """Its `info` is that of a turn in the middle, where the environment says None."""
    cut = episode({"hops": 1, "em": None, "searches": 2, "format_ok": None}, 0.0)
    assert by_hops([cut]) == {"em": {"1": 0.0}, "searches": {"1": 2.0}, "format_ok": {"1": 0.0}, "questions": {"1": 1}}


def test_what_was_said_before_the_cut_does_not_count() -> None:
    """Some environments report at every turn, as if the episode ended with it."""
    cut = replace(episode({"em": 1.0, "searches": 2, "format_ok": True}, 0.5), status=Status.LENGTH)
    assert by_hops([cut]) == {
        "em": {"all": 0.0}, "searches": {"all": 2.0}, "format_ok": {"all": 0.0}, "questions": {"all": 1}
    }  # fmt: skip


def test_groups_are_whole_numbers_however_they_are_written() -> None:
    assert [group_of({"hops": hops}) for hops in (2, 2.0, "2", None)] == ["2", "2", "2", "all"]
    assert group_of({}) == "all"


def test_an_environment_that_reports_nothing_is_scored_by_its_reward() -> None:
    result = by_hops([episode({}, 0.5, 0.25), episode({}, 0.0)])
    assert result["em"] == {"all": 0.375}
    assert result["searches"] == result["format_ok"] == {"all": 0.0}


def test_no_episodes_have_no_metrics() -> None:
    assert by_hops([]) == {}
