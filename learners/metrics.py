"""Metrics of episodes, and how they are told. The only file of the learners that knows hops, exact match, searches and
format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from learners import border
from learners.errors import Fault
from learners.types import Status, Trajectory

Metrics = Mapping[str, Mapping[str, float]]
"""Metric -> group of questions -> value."""
METRICS = ("em", "f1", "searches", "format_ok")
"""Keys of `info` that are metrics where the environment has them; see `learners.contract.Info`."""
_HEADLINE = ("em", "searches", "format_ok")
"""What a line for a person has room for, of an environment that knows exact match."""
_LABELS = {"em": "EM", "format_ok": "format"}
_COUNTS = frozenset({"questions", "dropped"})
"""What an evaluation counts, beside its metrics."""
_TAKEN = _COUNTS | {"reward", "length", "hops", "question_id", "place", "num_questions", "gold_known", *METRICS}
"""Keys of `info` that are no numbers of the environment's own, or whose names are taken."""
_OF_A_STEP = frozenset({"policy", "tokens", "episodes", "seconds"})
"""What a training step measures beside the environment's metrics; an environment's own of such a name gets a prefix."""


def group_of(info: Mapping[str, Any]) -> str:
    """The group of questions that an episode belongs to: its hop count, or `"all"` where none is reported."""
    hops = _alone(info.get("hops"))
    if isinstance(hops, float) and hops.is_integer():  # as NumPy may have it
        hops = int(hops)
    return "all" if hops is None else str(hops)


def question_ids(trajectories: Iterable[Trajectory]) -> set[str]:
    """Which questions these are, as far as the environment says so."""
    return {str(t.info["question_id"]) for t in trajectories if t.info.get("question_id") is not None}


def title(group: str) -> str:
    """A group for a reader: `"1 hop"`, `"2 hops"`, or its own name."""
    return f"{group} {'hop' if group == '1' else 'hops'}" if group.isdigit() else group


def in_order(groups: Iterable[str]) -> list[str]:
    """Groups for a reader: 1, 2, 10, then those that are no numbers."""
    return sorted(groups, key=lambda group: (0, int(group), group) if group.isdecimal() else (1, 0, group))


def label(metric: str) -> str:
    """A metric for a reader."""
    return _LABELS.get(metric, metric)


def by_hops(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, float]]:
    """What an environment reports, as means over the episodes of each hop count.

    Returns:
        Metric -> hop count -> mean, and `questions`, a count, e.g.
        `{"reward": {"1": 0.9, "2": 0.8}, "length": …, "em": …, "questions": {"1": 500, "2": 500}}`. Where the
        environment reports no hop count there is one group, `"all"`. The metrics are `reward`, `length` (tokens), those
        of `METRICS` that the environment has, and every other number in its last `info`.

    Raises:
        Fault: one of `METRICS` that the environment reports is not a number.
    """
    groups: dict[str, list[tuple[Trajectory, dict[str, float]]]] = defaultdict(list)
    for trajectory in trajectories:
        groups[group_of(trajectory.info)].append((trajectory, _own(trajectory.info)))
    own = sorted({name for members in groups.values() for _, numbers in members for name in numbers})
    # Where every episode was cut off, none had an answer to judge; an environment that counts searches judges answers.
    cut = all(t.status is Status.LENGTH for t in trajectories) and any("searches" in t.info for t in trajectories)
    known = [metric for metric in METRICS if cut or any(metric in t.info for t in trajectories)]
    result: dict[str, dict[str, float]] = {}
    for group in in_order(groups):
        members = groups[group]
        values = {metric: [_value(t, metric) for t, _ in members] for metric in known}
        values |= {name: [numbers[name] for _, numbers in members if name in numbers] for name in own}
        values |= {"reward": [t.reward for t, _ in members], "length": [float(len(t.ids)) for t, _ in members]}
        for metric in ("reward", "length", *known, *own):
            if values[metric]:
                result.setdefault(metric, {})[group] = sum(values[metric]) / len(values[metric])
        result.setdefault("questions", {})[group] = len(members)
    return result


def _value(trajectory: Trajectory, metric: str) -> float:
    """A metric of one episode: 0.0 where it has none, e.g. because the token budget ended it before it answered."""
    # A token budget ended the episode before it answered, whatever the environment said of it so far.
    if trajectory.status is Status.LENGTH and metric != "searches":
        return 0.0
    value = _alone(trajectory.info.get(metric))
    if not isinstance(value, int | float | None):
        raise Fault(f"info[{metric!r}] is {border.shown(value)}, and it must be a number: it is a metric")
    return float(value or 0.0)


def _alone(value: Any) -> Any:
    """The number in a list of one, which an array of one becomes."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _own(info: Mapping[str, Any]) -> dict[str, float]:
    """An environment's own numbers."""
    alone = {key: _alone(value) for key, value in info.items() if key not in _TAKEN}
    return {key: float(value) for key, value in alone.items() if isinstance(value, int | float)}


def of_environment(metric: str) -> str:
    """A metric of an environment, named so that `metric/group` can stand among the numbers of a training step."""
    metric = metric.replace("/", "-")
    return f"own_{metric}" if metric in _OF_A_STEP else metric


def headline(metrics: Iterable[str]) -> list[str]:
    """The metrics that a person is shown: exact match and what belongs to it, or else whatever there is."""
    names = [name for name in metrics if name not in _COUNTS]
    return [name for name in _HEADLINE if name in names] if "em" in names else names


def of_step(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The metrics among the numbers of a training step, whose names are `metric/group`."""
    found: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        metric, _, group = name.rpartition("/")
        if metric and metric.split("/")[0] not in _OF_A_STEP:
            found.setdefault(metric, {})[group] = value
    return found


def told(metrics: Metrics) -> str:
    """Metrics in one line, e.g. `1/2 hops: EM 0.98/0.93  searches 1.02/2.10  format 1.00/1.00`."""
    names = headline(metrics)
    groups = in_order({group for name in names for group in metrics[name]})
    head = "/".join(groups[:-1] + [title(group) for group in groups[-1:]])

    def values(name: str) -> str:
        return "/".join(f"{metrics[name][group]:.2f}" if group in metrics[name] else "-" for group in groups)

    return ("" if groups == ["all"] else f"{head}: ") + "  ".join(f"{label(name)} {values(name)}" for name in names)


def of_episode(trajectory: Trajectory) -> str:
    """How one episode went, e.g. `reward 1, EM 1, searches 2, format 1, terminated`."""
    info = trajectory.info
    values = {metric: _value(trajectory, metric) for metric in METRICS if metric in info} | _own(info)
    numbers = {"reward": trajectory.reward} | {name: values[name] for name in headline(values)}
    return ", ".join([*(f"{label(name)} {value:g}" for name, value in numbers.items()), str(trajectory.status)])
