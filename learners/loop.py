"""One training step, from top to bottom: play episodes, give credit, update the policy, publish its weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from learners import seeds
from learners.algorithms.base import Algorithm, Term
from learners.cluster import Cluster
from learners.config import Config
from learners.errors import Fault
from learners.packing import pack
from learners.plugins import PluginFault
from learners.report import say
from learners.types import Group, Probe, Scores, Status, Trajectory

_ADVICE = "its weights or its precision are at fault: try --trainer.dtype float32, or an earlier checkpoint"

Metrics = Mapping[str, Mapping[str, float]]
"""Metric -> group of questions -> value, as the environment's metric function gives them."""


@dataclass(frozen=True, slots=True)
class Played:
    """The episodes of one step."""

    groups: list[Group]
    """Those that are trained on."""
    questions: int
    """Questions that were asked for them, those of rejected groups included."""
    metrics: dict[str, float]


def roll_out(
    config: Config,
    algorithm: Algorithm,
    cluster: Cluster,
    measure: Callable[[Sequence[Trajectory]], Metrics],
    env_kwargs: dict[str, Any],
    step: int,
    first: int,
) -> Played:
    """Play the step's groups; those that the algorithm rejects are replaced by further questions, a few times.

    Args:
        config: Of the run.
        algorithm: Says which groups are kept.
        cluster: Plays.
        measure: The environment's metric function.
        env_kwargs: Of the training environment at this stage.
        step: From 0.
        first: Reset seed of the step's first question.
    """
    start = time.monotonic()
    kept: list[Group] = []
    trajectories: list[Trajectory] = []
    questions = rejected = retried = dropped = lost = 0
    for _ in range(1 + algorithm.rounds):
        missing = config.prompts - len(kept)
        if not missing:
            break
        played = questions * config.group_size
        # A replacement asks the next question, and not the rejected one again.
        plays = seeds.training(config.seed, step, first + questions, missing, config.group_size, played)
        rollout = cluster.collect(plays, env_kwargs, config.temperature)
        questions += missing
        groups = by_group(rollout.trajectories)
        good = [group for group in groups if algorithm.keep(group)]
        kept += good
        rejected += len(groups) - len(good)
        trajectories += rollout.trajectories
        retried += rollout.retried
        dropped += rollout.dropped
        lost += rollout.lost
        if rollout.reason:
            say(f"  {rollout.failures}")
    # Metrics are of all episodes: those of the kept groups alone would misjudge the policy.
    measured = {name: values for name, values in measure(trajectories).items() if name != "questions"}
    return Played(
        kept,
        questions,
        {
            **{f"{name}/{group}": value for name, values in measured.items() for group, value in values.items()},
            "reward": float(np.mean([t.reward for t in trajectories])),
            "tokens/episode": float(np.mean([len(t.ids) for t in trajectories])),
            "tokens/sampled": sum(int(t.mask.sum()) for t in trajectories),
            "tokens/over_length": float(np.mean([t.status is Status.LENGTH for t in trajectories])),
            "episodes/retried": retried,
            "episodes/dropped": dropped,
            "episodes/lost_threads": lost,
            "groups_rejected": rejected,
            "seconds/rollout": time.monotonic() - start,
        },
    )


def learn(
    config: Config, algorithm: Algorithm, cluster: Cluster, groups: Sequence[Group], step: int
) -> dict[str, float]:
    """Give credit to the step's groups, make the updates, and send the new weights to the engines. Returns metrics.

    Raises:
        PluginFault: the algorithm or the engine gave something that does not fit.
        Fault: the policy has no finite log-probabilities, or too many updates in a row came to nothing.
    """
    start = time.monotonic()
    progress = step / max(1, config.steps - 1)
    terms = algorithm.terms()
    # The questions come well mixed, so neighbours make a fair minibatch; groups are never parted.
    updates = split(groups, config.minibatches)
    # Shares are made for each update, because the objective is a mean over the tokens of one update.
    shares = [share for update in updates for share in _checked(algorithm, "share", update, algorithm.share(update))]
    trajectories = [trajectory for group in groups for trajectory in group]
    for trajectory in trajectories:
        _finite(f"--engine.kind {config.engine.kind} gave a log-probability", trajectory.logprobs, trajectory)
    scores, columns = score(cluster, algorithm, terms, groups, [bool(share.any()) for share in shares])
    credits = algorithm.credit(groups, scores)
    _checked(algorithm, "credit", groups, [credit.advantages for credit in credits])
    _checked(algorithm, "credit", groups, [c.advantages if c.returns is None else c.returns for c in credits])
    rate, coefficients = learning_rate(config, step), {term.name: term.coefficient(progress) for term in terms}
    told: list[dict[str, float]] = []
    for _ in range(config.epochs):
        at = 0
        for update in updates:
            part = slice(at, at := at + sum(len(group) for group in update))
            batches = pack(
                trajectories[part],
                config.trainer.max_batch_tokens,
                credits[part],
                shares[part],
                {name: column[part] for name, column in columns.items()},
            )
            # An update whose shares are all 0 has nothing to learn from, and the optimiser makes no step.
            if batches:
                told.append(cluster.step(batches, rate, coefficients))
    trained = time.monotonic()
    made = [update for update in told if not update["skipped"]]
    cluster.publish(step + 1)
    return {
        "groups_with_signal": sum(len({t.reward for t in group}) > 1 for group in groups) / max(1, len(groups)),
        # A skipped update has no numbers that mean anything.
        **{
            f"policy/{name}": float(np.mean([u[name] for u in made]))
            for name in (made[0] if made else ())
            if name != "skipped"
        },
        # Until the first update both are the same policy: what is left is how far engine and trainer disagree.
        "policy/engine_gap": made[0]["ratio_gap"] if made else 0.0,
        "policy/updates_skipped": len(told) - len(made),
        "seconds/train": trained - start,
        "seconds/weights": time.monotonic() - trained,
    }


def _checked(
    algorithm: Algorithm, method: str, groups: Sequence[Group], arrays: Sequence[np.ndarray]
) -> Sequence[np.ndarray]:
    """What an algorithm gave for each trajectory; one too many would give all that follow another's."""
    wanted = [trajectory for group in groups for trajectory in group]
    what = f"{type(algorithm).__name__}.{method}"
    if len(arrays) != len(wanted):
        raise PluginFault(f"{what} gave {len(arrays)} arrays for {len(wanted)} trajectories")
    for array, trajectory in zip(arrays, wanted, strict=True):
        length = len(trajectory.ids)
        if np.shape(array) != (length,):
            raise PluginFault(f"{what} gave an array of shape {np.shape(array)} for a trajectory of {length} tokens")
        _finite(f"{what} gave a number", array, trajectory)
    return arrays


def _finite(what: str, array: np.ndarray, trajectory: Trajectory) -> None:
    odd = np.flatnonzero(trajectory.mask & ~np.isfinite(array))
    if len(odd):
        where = f"token {odd[0]} of an episode with seed {trajectory.seed}"
        raise PluginFault(f"{what} that is not finite: {array[odd[0]]} for {where}")


def score(
    cluster: Cluster, algorithm: Algorithm, terms: Sequence[Term], groups: Sequence[Group], trained: Sequence[bool]
) -> tuple[Scores, dict[str, list[np.ndarray]]]:
    """What the algorithm and its terms look at, each computed once.

    Args:
        cluster: Computes.
        algorithm: Its `needs` are computed for every trajectory, because credit may look at all of them.
        terms: Their `needs` are read in the loss alone, so trajectories that are not trained on are left out.
        groups: Of the step.
        trained: For each trajectory, whether it has a share in the objective.

    Returns:
        The algorithm's scores, and the columns that go into batches: name -> `[L]` for each trajectory, 0.0 where it
        was not computed.
    """
    trajectories = [trajectory for group in groups for trajectory in group]
    own = algorithm.needs - {"probes"}
    wanted = own.union(*(term.needs for term in terms))
    chosen = [at for at in range(len(trajectories)) if own or trained[at]]
    columns = {name: [np.zeros(len(t.ids), np.float32) for t in trajectories] for name in wanted}
    if wanted and chosen:
        for name, found in cluster.score([trajectories[at] for at in chosen], wanted).items():
            for at, column in zip(chosen, found, strict=True):
                if not np.isfinite(column).all():
                    raise Fault(f"the trainer's log-probabilities ({name}) are not finite numbers; {_ADVICE}")
                columns[name][at] = column
    probed = _probe(cluster, algorithm.probes(groups)) if "probes" in algorithm.needs else None
    return Scores(**{name: columns[name] for name in own}, probes=probed), columns


def _probe(cluster: Cluster, probes: Sequence[Probe]) -> list[np.ndarray]:
    """Log-probabilities of the targets of probes under the policy as it is now, `[A]` each."""
    if not probes:
        return []
    sequences = []
    for probe in probes:
        ids = np.array([*probe.prefix, *probe.target], np.int32)
        mask = np.arange(len(ids)) >= len(probe.prefix)
        nothing = np.zeros(len(ids), np.float32)
        sequences.append(Trajectory(ids, mask, nothing, (), Status.TERMINATED, seed=0, group=0))
    found = cluster.score(sequences, frozenset({"old"}))["old"]
    return [column[len(probe.prefix) :] for probe, column in zip(probes, found, strict=True)]


def by_group(trajectories: Sequence[Trajectory]) -> list[Group]:
    """The groups of a rollout, in the order of their first trajectory. Those with dropped episodes are smaller."""
    groups: dict[int, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.group, []).append(trajectory)
    return list(groups.values())


def split(groups: Sequence[Group], parts: int) -> list[Sequence[Group]]:
    """The groups in order, cut into `parts` parts of nearly the same size; into fewer where there are fewer groups."""
    parts = max(1, min(parts, len(groups)))
    size, more = divmod(len(groups), parts)
    edges = [part * size + min(part, more) for part in range(parts + 1)]
    return [groups[start:stop] for start, stop in pairwise(edges)]


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of step `step`, from 0: up over the warm-up, then linearly to the final rate."""
    settings = config.trainer
    last = settings.final_learning_rate or settings.learning_rate
    level = settings.learning_rate + (last - settings.learning_rate) * step / max(1, config.steps - 1)
    return level * min(1.0, (step + 1) / (settings.rate_warmup_steps + 1))
