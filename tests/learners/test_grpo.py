"""Schedules, and the checkpoint that a kill at any moment leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners.config import Config
from learners.grpo import find_checkpoint, hash_seed, kl_coefficient, learning_rate, load_config, uninterrupted, update
from learners.report import Reporter
from learners.trainer import replace_folder
from learners.types import Batch, Trajectory


def configured(arguments: str) -> Config:
    return load_config(arguments.split())


class Killed(BaseException):
    """The process ends here."""


def write(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    return folder


@pytest.mark.parametrize(
    ("moment", "survivor"),
    [("before the first rename", 3), ("between the renames", 3), ("before the old one is removed", 4), ("never", 4)],
)
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, survivor: int
) -> None:
    """The run has a checkpoint of step 3; while that of step 4 takes its place, the process is killed."""
    checkpoint = write(tmp_path / "checkpoint", 3)
    partial = write(tmp_path / "checkpoint.partial", 4)
    rename, remove = Path.rename, shutil.rmtree
    renames = {"before the first rename": 0, "between the renames": 1}.get(moment, 99)

    def dying_rename(self: Path, target: Any) -> Path:
        nonlocal renames
        if renames == 0:
            raise Killed
        renames -= 1
        return rename(self, target)

    def dying_remove(path: Any, *args: Any, **kwargs: Any) -> None:
        if moment == "before the old one is removed" and Path(path).exists():
            raise Killed
        remove(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename)
        patch.setattr(shutil, "rmtree", dying_remove)
        if moment == "never":
            replace_folder(partial, checkpoint)
        else:
            with pytest.raises(Killed):
                replace_folder(partial, checkpoint)

    assert find_checkpoint(tmp_path) == (survivor, {"step": survivor})
    # The run goes on: the next checkpoint takes its place, and nothing of the accident stays.
    shutil.rmtree(partial, ignore_errors=True)
    replace_folder(write(partial, 5), checkpoint)
    assert find_checkpoint(tmp_path)[0] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume") as raised:
        find_checkpoint(tmp_path)
    assert str(tmp_path) in str(raised.value)


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


def test_the_kl_coefficient_falls_geometrically() -> None:
    config = configured("--steps 3 --kl 0.4 --final-kl 0.1")
    np.testing.assert_allclose([kl_coefficient(config, step) for step in range(3)], [0.4, 0.2, 0.1])


@pytest.mark.parametrize("arguments", ["--kl 0 --final-kl 0.1", "--kl 0.3 --final-kl null", "--kl 0.3 --final-kl 0.3"])
def test_the_kl_coefficient_may_stay(arguments: str) -> None:
    config = configured(f"--steps 4 {arguments}")
    assert [kl_coefficient(config, step) for step in range(4)] == pytest.approx([config.kl] * 4)


def test_sampling_seeds_differ_by_run_and_step() -> None:
    seeds = {hash_seed(seed, step) for seed in range(20) for step in range(100)}
    assert len(seeds) == 2_000
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_until_the_step_is_whole(number: int) -> None:
    done = []
    usual = signal.getsignal(signal.SIGINT)

    @uninterrupted()
    def step() -> None:
        os.kill(os.getpid(), number)
        done.append("counted")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["counted"]
    assert signal.getsignal(signal.SIGINT) is usual
    with uninterrupted():
        done.append("next")
    assert done[-1] == "next"


def test_a_new_run_forgets_what_stood_in_its_folder(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    report.metrics(0, {"em/1": 0.5})
    report.close()
    assert len(report.history()) == 1
    report.restart()
    assert report.history() == []


@pytest.mark.parametrize(("flat_episodes", "kept"), [(None, 8), (2, 6), (9, 8)])
def test_a_group_without_advantage_is_stood_for_by_a_few(
    make_trajectory: Callable[..., Trajectory], flat_episodes: int | None, kept: int
) -> None:
    """Two groups of four; the first has rewards 1, 0, 1, 0, the second none. Weights add up to all the episodes."""
    groups = [[make_trajectory(9, [(3, 8)], float(i % 2 == 0), seed=0) for i in range(4)],
              [make_trajectory(9, [(3, 8)], 0.0, seed=1) for _ in range(4)]]  # fmt: skip
    seen: list[Any] = []

    class Trainers:
        def step(self, batches: list[Batch], tokens: int, *_: float) -> dict[str, float]:
            seen.extend([batches, tokens])
            return {}

    config = configured("").model_copy(update={"flat_episodes": flat_episodes})
    update(config, Trainers(), groups, 0)  # type: ignore[arg-type]
    batches, tokens = seen
    assert sum(len(batch.lengths) for batch in batches) == kept
    assert sum(batch.weights.sum() for batch in batches) == tokens == 8 * 5
    assert sum(batch.advantages.sum() for batch in batches) == pytest.approx(0.0, abs=1e-5)
    assert sum((batch.advantages != 0).sum() for batch in batches) == 4 * 5
