"""Means by hop count, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learners.errors import Fault
from learners.metrics import by_hops, group_of, of_episode, of_step, told
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
    result = by_hops([cut])
    assert {name: result[name] for name in ("em", "searches", "format_ok")} == {
        "em": {"1": 0.0}, "searches": {"1": 2.0}, "format_ok": {"1": 0.0},
    }  # fmt: skip


def test_what_was_said_before_the_cut_does_not_count() -> None:
    """Some environments report at every turn, as if the episode ended with it."""
    cut = replace(episode({"em": 1.0, "searches": 2, "format_ok": True}, 0.5), status=Status.LENGTH)
    assert by_hops([cut]) == {
        "reward": {"all": 0.5}, "length": {"all": 2.0}, "em": {"all": 0.0}, "f1": {"all": 0.0},
        "searches": {"all": 2.0}, "format_ok": {"all": 0.0}, "questions": {"all": 1},
    }  # fmt: skip


def test_numbers_that_say_which_question_it_is_are_no_metrics() -> None:
    info = {"question_id": "q", "place": 17, "num_questions": 20_000, "gold_known": True, "em": 1.0}
    assert set(by_hops([episode(info, 1.0)])) == {"reward", "length", "em", "questions"}


def test_episodes_that_were_all_cut_off_answered_nothing() -> None:
    """The environment says `em` at the end alone, which none of them reached."""
    cut = replace(episode({"hops": 1, "searches": 2}, 0.0), status=Status.LENGTH)
    assert by_hops([cut])["em"] == by_hops([cut])["format_ok"] == {"1": 0.0}
    assert "em" not in by_hops([replace(cut, info={"moves": 3})])


def test_groups_are_whole_numbers_however_they_are_written() -> None:
    assert [group_of({"hops": hops}) for hops in (2, 2.0, [2], "2", None)] == ["2", "2", "2", "2", "all"]
    assert group_of({}) == "all"


def test_an_environment_is_reported_by_what_it_has() -> None:
    """No exact match, searches or format that it does not know; whatever numbers it gives, where it gives them."""
    result = by_hops([
        episode({"moves": 3, "won": True, "note": "text", "board": [1, 2]}, 0.5, 0.25),
        episode({"moves": 4, "won": False, "stars": 2.0}, 0.0),
        episode({}, 0.0),
    ])  # fmt: skip
    assert result == {
        "reward": {"all": 0.25}, "length": {"all": pytest.approx(7 / 3)}, "moves": {"all": 3.5}, "stars": {"all": 2.0},
        "won": {"all": 0.5}, "questions": {"all": 3},
    }  # fmt: skip
    assert by_hops([episode({}, 1.0)]) == {"reward": {"all": 1.0}, "length": {"all": 2.0}, "questions": {"all": 1}}


def test_metrics_in_a_line() -> None:
    ours = {"reward": {"1": 0.9}, "em": {"1": 0.98, "2": 0.5}, "searches": {"1": 1.0, "2": 2.25}, "questions": {"1": 2}}
    assert told(ours) == "1/2 hops: EM 0.98/0.50  searches 1.00/2.25"
    assert told({"em": {"1": 1.0}}) == "1 hop: EM 1.00"
    assert told({"reward": {"all": 0.25}, "moves": {"all": 3.5}, "dropped": {"all": 0}}) == "reward 0.25  moves 3.50"
    assert told({"reward": {"bridge": 0.2, "other": 0.4}, "won": {"other": 1.0}}) == (
        "bridge/other: reward 0.20/0.40  won -/1.00"
    )


def test_groups_that_are_numbers_are_told_as_numbers() -> None:
    result = by_hops([episode({"hops": hops, "em": 1.0}) for hops in (10, "x", 2)])
    assert list(result["em"]) == ["2", "10", "x"]
    assert told({"em": {"10": 0.5, "x": 0.25, "2": 1.0}}) == "2/10/x: EM 1.00/0.50/0.25"


def test_an_episode_in_a_line() -> None:
    assert of_episode(episode({"em": 1.0, "f1": 1.0, "searches": 2, "format_ok": True, "turn": 3}, 1.0)) == (
        "reward 1, EM 1, searches 2, format 1, terminated"
    )
    assert of_episode(episode({"moves": 3, "won": True}, 0.5)) == "reward 0.5, moves 3, won 1, terminated"


def test_metrics_of_a_step_are_found_among_its_numbers() -> None:
    step = {"reward/all": 0.5, "reward": 0.5, "a/b/all": 1.0}
    others = {
        "policy/kl": 0.1,
        "tokens/episode": 9.0,
        "seconds/train": 1.0,
        "episodes/dropped": 0,
        "groups_rejected": 1,
    }
    assert of_step(step | others) == {"reward": {"all": 0.5}, "a/b": {"all": 1.0}}


def test_no_episodes_have_no_metrics() -> None:
    assert by_hops([]) == {}


def test_an_array_of_one_number_is_that_number() -> None:
    """`learners.border` makes a list of it."""
    assert by_hops([episode({"score": [[0.5]]}, 1.0)])["score"] == {"all": 0.5}
    assert by_hops([episode({"hops": [1], "em": [[1.0]], "searches": [2], "format_ok": True})])["em"] == {"1": 1.0}


@pytest.mark.parametrize("value", ["yes", [1.0, 0.0], {}])
def test_a_metric_that_is_no_number_is_one_line(value: Any) -> None:
    with pytest.raises(Fault, match=r"info\['em'\] is .*, and it must be a number"):
        by_hops([episode({"em": value})])
