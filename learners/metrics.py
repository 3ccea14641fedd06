"""Metrics of episodes. The only file of the learners that knows hops, exact match, searches and format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from learners.types import Status, Trajectory

METRICS = ("em", "searches", "format_ok")
"""Keys of `info` that are metrics; see `learners.contract.Info`."""


def group_of(info: Mapping[str, Any]) -> str:
    """The group of questions that an episode belongs to: its hop count, or `"all"` where none is reported."""
    hops = info.get("hops")
    if isinstance(hops, float) and hops.is_integer():  # as NumPy may have it
        hops = int(hops)
    return "all" if hops is None else str(hops)


def question_ids(trajectories: Iterable[Trajectory]) -> set[str]:
    """Which questions these are, as far as the environment says so."""
    return {str(t.info["question_id"]) for t in trajectories if t.info.get("question_id") is not None}


def title(group: str) -> str:
    """A group for a reader: `"1 hop"`, `"2 hops"`, or `"all"`."""
    return {"all": "all", "1": "1 hop"}.get(group, f"{group} hops")


def by_hops(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, float]]:
    """Metrics as means over the episodes of each hop count.

    Returns:
        Metric -> hop count -> mean, for each of `METRICS`, and `questions`, a count, e.g.
        `{"em": {"1": 0.98, "2": 0.93}, …, "questions": {"1": 500, "2": 500}}`. Where the environment reports no hop
        count there is one group, `"all"`.
    """
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        groups[group_of(trajectory.info)].append(trajectory)
    result: dict[str, dict[str, float]] = {}
    for group, members in sorted(groups.items()):
        for metric in METRICS:
            result.setdefault(metric, {})[group] = sum(_value(t, metric) for t in members) / len(members)
        result.setdefault("questions", {})[group] = len(members)
    return result


def _value(trajectory: Trajectory, metric: str) -> float:
    """A metric of one episode: 0.0 where it has none, e.g. because the token budget ended it before it answered."""
    # A token budget ended the episode before it answered, whatever the environment said of it so far.
    if trajectory.status is Status.LENGTH and metric in ("em", "format_ok"):
        return 0.0
    # An environment that ended the episode without the key knows no exact match.
    if metric == "em" and "em" not in trajectory.info:
        return trajectory.reward
    return float(trajectory.info.get(metric) or 0.0)
