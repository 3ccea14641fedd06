"""What is not a finite number never becomes a step: bounds before exponentials, skipped updates, faults by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp, inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learners.algorithms.grpo import GRPO, GRPOSettings
from learners.algorithms.terms import clipped_loss, k3
from learners.config import Config, load_config
from learners.errors import Fault
from learners.loop import learn
from learners.packing import pack
from learners.plugins import PluginFault
from learners.report import line
from learners.trainer import Trainer
from learners.types import Batch, Credit, Group, Loss, Scores, TokenInputs, Trajectory

MakeTrajectory = Callable[..., Trajectory]
E20 = exp(20.0)


def slopes(function: Callable[[Tensor], Tensor], at: list[float]) -> tuple[list[float], list[float]]:
    """Values and derivatives of a function of log-probabilities."""
    logprobs = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    values = function(logprobs)
    values.sum().backward()
    assert logprobs.grad is not None
    return values.tolist(), logprobs.grad.tolist()


@pytest.mark.parametrize(
    ("policy", "reference", "value", "slope"),
    [
        (-1.0, -1.0, 0.0, 0.0),
        (-2.0, -1.0, exp(1) - 2, 1 - exp(1)),
        (-1.0, -3.0, exp(-2) + 1, 1 - exp(-2)),
        (-89.5, -0.1, 10.0, 0.0),  # exp(89.4) overflows float32
        (-1e4, -0.1, 10.0, 0.0),
        (-0.1, -89.5, 10.0, 0.0),
        (-inf, -0.1, 10.0, 0.0),
        (-0.1, -inf, 10.0, 0.0),
    ],
)
def test_k3_and_its_slope(policy: float, reference: float, value: float, slope: float) -> None:
    for dtype in (torch.float32, torch.float64):
        logprobs = torch.tensor([policy], dtype=dtype, requires_grad=True)
        found = k3(logprobs, torch.tensor([reference], dtype=dtype))
        found.backward()
        assert found.item() == pytest.approx(value, rel=1e-6, abs=1e-9)
        assert logprobs.grad is not None
        assert logprobs.grad.item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("far", [89.5, 1e5, inf])
@pytest.mark.parametrize(
    ("sign", "advantage", "loss", "clipped"),
    [
        (1, 2.0, -1.2 * 2, True),  # more likely and good: the bound takes the gain away
        (1, -2.0, 2 * E20, False),  # more likely and bad: the loss shows, as far as the bound before the exponential
        (-1, 2.0, -2 / E20, False),
        (-1, -2.0, 0.8 * 2, True),
    ],
)
def test_a_ratio_beyond_every_bound(far: float, sign: int, advantage: float, loss: float, clipped: bool) -> None:
    logprobs = torch.tensor([sign * far], requires_grad=True)
    value, cut = clipped_loss(logprobs, torch.tensor([0.0]), torch.tensor([advantage]), 0.2, 0.2)
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-5)
    assert cut.item() is clipped
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0.0


def test_within_the_bounds_nothing_has_changed() -> None:
    """Bit for bit the formulas without a bound, on both sides, for both signs of the advantage."""
    grid = torch.linspace(-19.4, 19.4, 400, dtype=torch.float32)
    behaviour = torch.full_like(grid, -0.5)
    for advantage in (1.5, -1.5, 0.0):
        one, two = grid.clone().requires_grad_(), grid.clone().requires_grad_()
        ours, cut = clipped_loss(one, behaviour, torch.full_like(grid, advantage), 0.2, 0.28)
        ratio = (two - behaviour).exp()
        free, bounded = ratio * advantage, ratio.clamp(0.8, 1.28) * advantage
        ours.sum().backward()
        (-free.minimum(bounded)).sum().backward()
        assert torch.equal(ours, -free.minimum(bounded))
        assert torch.equal(cut, bounded < free)
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]
    one, two = grid.clone().requires_grad_(), grid.clone().requires_grad_()
    ours, old = k3(one, behaviour), ((behaviour - two).exp() - (behaviour - two) - 1).clamp(max=10.0)
    ours.sum().backward()
    old.sum().backward()
    assert torch.equal(ours, old)
    assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


@pytest.fixture
def config() -> Config:
    return load_config(["--objective.kl", "0", "--objective.final-kl", "null", "--trainer.threads", "1"])


@pytest.fixture
def batch(make_trajectory: MakeTrajectory) -> Batch:
    trajectory = make_trajectory(40, [(5, 20), (30, 40)])
    (made,) = pack([trajectory], 60, [Credit(np.ones(40, np.float32))], [(trajectory.mask / 25).astype(np.float32)])
    return made


class Poisoned(GRPO):
    """GRPO whose loss is spoilt as `how` says."""

    how = ""

    def loss(self, tokens: TokenInputs) -> Loss:
        spoilt: dict[str, Callable[[Tensor], Tensor]] = {
            "": lambda x: x,
            "loss nan": lambda x: x * nan,
            "loss inf": lambda x: x * inf,
            "loss nan without a gradient": lambda x: x + torch.full_like(x, nan),
            "gradient nan": lambda x: x + (x.detach() * 0 * x).abs().sqrt(),  # 0, and its slope is 0 x inf
            "gradient inf": lambda x: x * 1e30,  # its square overflows
        }
        loss = super().loss(tokens)
        return Loss(spoilt[self.how](loss.per_token), loss.metrics)


def state(trainer: Trainer) -> list[Tensor]:
    moments = [v for each in trainer.optimizer.state.values() for v in each.values()]
    return [t.detach().clone() for t in (*trainer.policy.parameters(), *moments)]


@pytest.mark.parametrize("how", ["loss nan", "loss inf", "loss nan without a gradient", "gradient nan", "gradient inf"])
def test_an_update_that_is_not_finite_changes_nothing(
    how: str, tiny_folder: Path, config: Config, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and AdamW stay as they were, before the first update and after it; the next one is as ever."""
    trainer, plain = Trainer(config, str(tiny_folder)), Trainer(config, str(tiny_folder))
    trainer._algorithm = Poisoned(config.objective)

    def step(spoilt: str) -> dict[str, float]:
        monkeypatch.setattr(Poisoned, "how", spoilt)
        return trainer.step([batch], 1e-3, {})

    assert step(how)["skipped"] == 1.0
    assert len(trainer.optimizer.state) == 0
    assert step("") == plain.step([batch], 1e-3, {})
    before = state(trainer)
    assert step(how)["skipped"] == 1.0
    assert step(how)["skipped"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, state(trainer), strict=True))
    assert step("") == plain.step([batch], 1e-3, {}), "two in a row, then a good one: the count begins again"
    step(how)
    step(how)
    before = state(trainer)
    with pytest.raises(Fault, match=r"^3 updates in a row .* --trainer.learning-rate \(it was 0.001\)") as caught:
        step(how)
    assert "\n" not in str(caught.value)
    assert "--trainer.dtype" not in str(caught.value), "it is float32 already"
    assert all(torch.equal(a, b) for a, b in zip(before, state(trainer), strict=True))


@pytest.mark.parametrize("setting", ["--trainer.learning-rate", "--trainer.gradient-norm", "--objective.kl"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_setting_is_a_finite_number(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        load_config([setting, value])


class Cluster:
    """Scores and steps as a test says."""

    def __init__(self, steps: list[dict[str, float]], score: float = -1.0) -> None:
        self.steps, self.value = steps, score

    def score(self, trajectories: list[Trajectory], wanted: frozenset[str]) -> dict[str, list[np.ndarray]]:
        return {name: [np.full(len(t.ids), self.value, np.float32) for t in trajectories] for name in wanted}

    def step(self, *_: object) -> dict[str, float]:
        return self.steps.pop(0)

    def publish(self, version: int) -> None:
        pass


def groups(make: MakeTrajectory, logprob: float = -1.0) -> list[Group]:
    made = [[make(9, [(3, 8)], reward, seed=4, group=g) for reward in (0.0, 1.0)] for g in range(2)]
    spoilt = np.where(np.arange(9) == 5, logprob, -1.0).astype(np.float32)
    return [made[0], [replace(made[1][0], logprobs=spoilt), made[1][1]]]


def test_skipped_updates_are_counted_and_lend_no_number(make_trajectory: MakeTrajectory, config: Config) -> None:
    config = config.model_copy(update={"minibatches": 2})
    bad = {"loss": nan, "ratio_gap": nan, "gradient_norm": nan, "skipped": 1.0}
    good = {"loss": 0.5, "ratio_gap": 0.25, "gradient_norm": 1.0, "skipped": 0.0}
    metrics = learn(config, GRPO(config.objective), Cluster([bad, good]), groups(make_trajectory), 0)  # type: ignore[arg-type]
    assert {name: metrics[f"policy/{name}"] for name in ("loss", "engine_gap", "updates_skipped")} == {
        "loss": 0.5, "engine_gap": 0.25, "updates_skipped": 1,
    }  # fmt: skip
    assert "updates skipped 1" in line(1, 9, metrics)
    metrics = learn(config, GRPO(config.objective), Cluster([bad, bad]), groups(make_trajectory), 0)  # type: ignore[arg-type]
    assert metrics["policy/updates_skipped"] == 2
    assert all(np.isfinite(value) for value in metrics.values())
    assert "skipped" not in line(1, 9, metrics | {"policy/updates_skipped": 0})


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_log_probability_that_is_not_finite_names_itself(
    value: float, make_trajectory: MakeTrajectory, config: Config
) -> None:
    odd = groups(make_trajectory, value)
    with pytest.raises(PluginFault, match=rf"--engine.kind vllm gave a log-probability .*: {value} for token 5 .* 4$"):
        learn(config, GRPO(config.objective), Cluster([]), odd, 0)  # type: ignore[arg-type]
    kl = GRPO(GRPOSettings(kl=0.1))
    with pytest.raises(Fault, match=r"log-probabilities \(reference\) are not finite"):
        learn(config, kl, Cluster([], value), groups(make_trajectory), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("method", ["credit", "returns", "share"])
def test_a_credit_that_is_not_finite_names_the_algorithm(
    method: str, value: float, make_trajectory: MakeTrajectory, config: Config
) -> None:
    class Odd(GRPO):
        def credit(self, groups: Any, scores: Scores) -> list[Credit]:
            odd = np.full(9, 0.0 if method == "share" else value, np.float32)
            fine = np.zeros(9, np.float32)
            return [Credit(fine, odd) if method == "returns" else Credit(odd) for g in groups for _ in g]

        def share(self, groups: Any) -> list[np.ndarray]:
            shares = super().share(groups)
            return [np.where(s > 0, np.float32(value), s) for s in shares] if method == "share" else shares

    named = "share" if method == "share" else "credit"
    with pytest.raises(PluginFault, match=rf"Odd.{named} gave a number that is not finite: {value} for token 3"):
        learn(config, Odd(config.objective), Cluster([]), groups(make_trajectory), 0)  # type: ignore[arg-type]
