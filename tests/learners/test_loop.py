"""One step: which groups are played, what is scored when, and what goes into the updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from learners import seeds
from learners.algorithms.base import Algorithm, Objective, Term
from learners.algorithms.grpo import GRPO, GRPOSettings
from learners.config import Config, load_config
from learners.loop import by_group, learn, learning_rate, roll_out, split
from learners.metrics import by_hops
from learners.plugins import PluginFault
from learners.rollout import Rollout
from learners.types import Batch, Credit, Group, Play, Probe, Scores, Trajectory

MakeTrajectory = Callable[..., Trajectory]


def configured(arguments: str) -> Config:
    return load_config(arguments.split())


class Recorder:
    """A cluster that writes down what it is asked. A question's reward is 1.0 where its seed is even."""

    def __init__(self, make: MakeTrajectory) -> None:
        self.make, self.calls = make, []  # type: ignore[var-annotated]

    def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        self.calls.append(("collect", [play.seed for play in plays]))
        played = [self.make(9, [(3, 8)], float(p.seed % 2 == 0), seed=p.seed, group=p.group) for p in plays]
        return Rollout(played, 1, 0)

    def score(self, trajectories: Sequence[Trajectory], wanted: frozenset[str]) -> dict[str, list[np.ndarray]]:
        self.calls.append(("score", sorted(wanted), len(trajectories)))
        return {
            name: [np.full(len(t.ids), -float(at + 1), np.float32) for at, t in enumerate(trajectories)]
            for name in wanted
        }

    def step(self, batches: Sequence[Batch], rate: float, coefficients: Mapping[str, float]) -> dict[str, float]:
        self.calls.append(("step", list(batches), rate, dict(coefficients)))
        return {"loss": 0.0, "ratio_gap": float(len(self.calls)), "skipped": 0.0}

    def publish(self, version: int) -> None:
        self.calls.append(("publish", version))

    def named(self, name: str) -> list[Any]:
        return [call for call in self.calls if call[0] == name]


def groups_of(make: MakeTrajectory, *rewards: Sequence[float]) -> list[Group]:
    return [
        [make(9, [(3, 8)], reward, seed=number, group=number) for reward in group]
        for number, group in enumerate(rewards)
    ]


def test_the_learning_rate_rises_then_falls_in_a_line() -> None:
    """Peak 1e-3 to 2e-4 over steps 0 to 4, and a rise over the first 3: fourths of it at steps 0, 1 and 2."""
    config = configured(
        "--steps 5 --trainer.learning-rate 1e-3 --trainer.final-learning-rate 2e-4 --trainer.rate-warmup-steps 3"
    )
    rates = [learning_rate(config, step) for step in range(5)]
    np.testing.assert_allclose(rates, [1e-3 / 4, 8e-4 / 2, 6e-4 * 3 / 4, 4e-4, 2e-4])


def test_the_learning_rate_keeps_its_peak() -> None:
    config = configured("--steps 3 --trainer.final-learning-rate null --trainer.rate-warmup-steps 0")
    assert {learning_rate(config, step) for step in range(3)} == {config.trainer.learning_rate}


@pytest.mark.parametrize(("groups", "parts"), [(48, 2), (5, 2), (7, 3), (2, 4), (1, 1), (0, 3)])
def test_minibatches_are_neighbours_of_nearly_one_size(groups: int, parts: int) -> None:
    found = split([[number] for number in range(groups)], parts)  # type: ignore[list-item]
    expected = [part.tolist() for part in np.array_split(np.arange(groups), max(1, min(parts, groups)))]
    assert [[group[0] for group in part] for part in found] == expected


def test_a_step_asks_the_next_questions(make_trajectory: MakeTrajectory) -> None:
    cluster, config = Recorder(make_trajectory), configured("--prompts 3 --group-size 2 --seed 4")
    first = seeds.first_question(4) + 30
    played = roll_out(config, GRPO(GRPOSettings()), cluster, by_hops, {}, 10, first)
    assert cluster.calls == [("collect", [first, first, first + 1, first + 1, first + 2, first + 2])]
    assert [[t.seed for t in group] for group in played.groups] == [[first + n] * 2 for n in range(3)]
    assert (played.questions, played.metrics["groups_rejected"], played.metrics["episodes/retried"]) == (3, 0, 1)


class Picky(GRPO):
    """Takes only questions of an even seed, and tries twice more."""

    rounds = 2

    def keep(self, group: Group) -> bool:
        return group[0].seed % 2 == 0


def test_rejected_groups_are_replaced_by_new_questions_a_few_times(make_trajectory: MakeTrajectory) -> None:
    """8 questions asked, 4 even; 4 more, 2 even; 2 more, 1 even; then no further round: 7 of 8 groups."""
    cluster, config = Recorder(make_trajectory), configured("--prompts 8 --group-size 2")
    played = roll_out(config, Picky(GRPOSettings()), cluster, by_hops, {}, 0, 0)
    asked = [seed for _, some in cluster.calls for seed in some[::2]]
    assert asked == list(range(14)), "no question is asked twice"
    assert [group[0].seed for group in played.groups] == [0, 2, 4, 6, 8, 10, 12]
    assert (played.questions, played.metrics["groups_rejected"]) == (14, 7)
    assert len({group[0].group for group in played.groups}) == 7


def test_a_step_is_scored_credited_updated_and_published_in_this_order(make_trajectory: MakeTrajectory) -> None:
    cluster = Recorder(make_trajectory)
    config = configured("--prompts 4 --group-size 2 --minibatches 2 --epochs 2 --steps 5 --objective.kl 0.4")
    groups = groups_of(make_trajectory, [1, 0], [0, 1], [1, 1], [0, 0])
    metrics = learn(config, GRPO(config.objective), cluster, groups, step=2)  # type: ignore[arg-type]
    assert [call[0] for call in cluster.calls] == ["score", "step", "step", "step", "step", "publish"]
    assert cluster.named("publish") == [("publish", 3)]
    assert metrics["groups_with_signal"] == 0.5
    assert metrics["policy/engine_gap"] == cluster.calls.index(cluster.named("step")[0]) + 1, "the first update's gap"
    for _, batches, rate, coefficients in cluster.named("step"):
        assert sum(float(batch.shares.sum()) for batch in batches) == pytest.approx(1.0)
        assert rate == learning_rate(config, 2)
        assert set(coefficients) == {"kl"}


def test_what_a_term_needs_is_scored_only_where_it_is_trained(make_trajectory: MakeTrajectory) -> None:
    """Of two flat groups of four, one episode each stands for all: 4 + 1 + 1 are scored, once for both epochs."""
    cluster = Recorder(make_trajectory)
    config = configured("--group-size 4 --minibatches 1 --epochs 2 --objective.flat-episodes 1")
    groups = groups_of(make_trajectory, [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])
    learn(config, GRPO(config.objective), cluster, groups, step=0)  # type: ignore[arg-type]
    assert cluster.named("score") == [("score", ["reference"], 6)]
    (_, (batch,), *_), *_ = cluster.named("step")
    assert len(batch.lengths) == 6
    reference = batch.columns["reference"]
    assert sorted(set(reference.tolist())) == [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0], "each its own score, in order"
    assert not reference[~batch.mask].any()


def test_without_terms_and_needs_nothing_is_scored(make_trajectory: MakeTrajectory) -> None:
    cluster, config = Recorder(make_trajectory), configured("--objective.kl 0 --objective.final-kl null")
    learn(config, GRPO(config.objective), cluster, groups_of(make_trajectory, [1, 0]), step=0)  # type: ignore[arg-type]
    assert cluster.named("score") == []


class Curious(Algorithm):
    """Asks for the trainer's own log-probabilities and for a probe of each episode, and keeps what it was given."""

    needs = frozenset({"old", "probes"})

    def probes(self, groups: Sequence[Group]) -> list[Probe]:
        return [Probe([7, 8], [9, 10, 11]) for group in groups for _ in group]

    def credit(self, groups: Sequence[Group], scores: Scores) -> list[Credit]:
        self.seen = scores
        return [
            Credit(np.ones(len(t.ids), np.float32), np.full(len(t.ids), 5.0, np.float32)) for g in groups for t in g
        ]

    def share(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [share * (at == 0) for at, share in enumerate(super().share(groups))]

    def terms(self) -> list[Term]:
        return []


def test_an_algorithm_is_given_what_it_needs_for_every_trajectory(make_trajectory: MakeTrajectory) -> None:
    """Also for those that it will not train on: its credit may look at them."""
    cluster, algorithm = Recorder(make_trajectory), Curious(Objective())
    learn(configured(""), algorithm, cluster, groups_of(make_trajectory, [1, 0], [0, 0]), step=0)  # type: ignore[arg-type]
    assert cluster.named("score") == [("score", ["old"], 4), ("score", ["old"], 4)]
    assert algorithm.seen.old is not None
    assert [column[0] for column in algorithm.seen.old] == [-1.0, -2.0, -3.0, -4.0]
    assert algorithm.seen.probes is not None
    assert [probe.tolist() for probe in algorithm.seen.probes][:2] == [[-1.0] * 3, [-2.0] * 3]
    assert algorithm.seen.reference is None
    (_, (batch,), *_), *_ = cluster.named("step")
    assert len(batch.lengths) == 1
    assert set(batch.columns) == {"old", "returns"}


def test_a_step_without_a_group_updates_nothing(make_trajectory: MakeTrajectory) -> None:
    cluster, config = Recorder(make_trajectory), configured("")
    metrics = learn(config, GRPO(config.objective), cluster, [], step=0)  # type: ignore[arg-type]
    assert [call[0] for call in cluster.calls] == ["publish"]
    assert metrics["groups_with_signal"] == 0.0


def test_groups_come_apart_again(make_trajectory: MakeTrajectory) -> None:
    """A dropped episode leaves its group smaller, and the others as they are."""
    played = [make_trajectory(9, [(3, 8)], seed=group, group=group) for group in (0, 0, 1, 2, 2)]
    assert [len(group) for group in by_group(played)] == [2, 1, 2]


class TooMany(GRPO):
    def share(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [*super().share(groups), np.zeros(9, np.float32)]


class TooShort(GRPO):
    def credit(self, groups: Sequence[Group], scores: Scores) -> list[Credit]:
        return [Credit(credit.advantages[1:]) for credit in super().credit(groups, scores)]


@pytest.mark.parametrize(
    ("algorithm", "named"), [(TooMany, "TooMany.share gave 3 arrays for 2"), (TooShort, "TooShort.credit")]
)
def test_an_algorithm_that_miscounts_is_named(
    make_trajectory: MakeTrajectory, algorithm: type[GRPO], named: str
) -> None:
    """One share too many would give each later trajectory that of another."""
    cluster, config = Recorder(make_trajectory), configured("--minibatches 2")
    with pytest.raises(PluginFault, match=named):
        learn(config, algorithm(GRPOSettings()), cluster, groups_of(make_trajectory, [1, 0], [0, 1]), step=0)  # type: ignore[arg-type]
    assert cluster.named("step") == []


def test_a_group_that_was_dropped_whole_was_not_rejected(make_trajectory: MakeTrajectory) -> None:
    class Lossy(Recorder):
        def collect(self, plays: Sequence[Play], *args: Any) -> Rollout:
            return super().collect([play for play in plays if play.group != 1], *args)

    played = roll_out(configured("--prompts 3"), GRPO(GRPOSettings()), Lossy(make_trajectory), by_hops, {}, 0, 0)
    assert (len(played.groups), played.metrics["groups_rejected"]) == (2, 0)
