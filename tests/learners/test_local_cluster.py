"""A small step in one process: the engine, the episodes and the trainer, without Ray."""

from __future__ import annotations

import os
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from learners import seeds
from learners.algorithms.grpo import GRPO
from learners.cluster import open_cluster
from learners.cluster.local import LocalCluster
from learners.config import Config, load_config
from learners.environment import EnvironmentFault
from learners.loop import by_group
from learners.packing import pack
from learners.types import Scores, Status

ROOT = Path(__file__).resolve().parents[2]
ENV = "LettersOfTurns-v0"
ARGUMENTS = [
    "--env", ENV, "--cluster", "local", "--engine.kind", "transformers", "--engine.max-length", "64",
    "--engine.threads", "1", "--trainer.threads", "1", "--max-turn-tokens", "6", "--max-retries", "0",
]  # fmt: skip


class Letters(gym.Env[str, str]):
    """Two turns; each is rewarded with the share of letters in it."""

    metadata: dict[str, Any] = {"render_modes": [], "stop": list("aeiou ,.")}

    def __init__(self, broken: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)
        self.broken, self.render_mode = broken, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        if self.broken:
            raise ConnectionError("no letters here")
        self.turn = 0
        return f"Who founded the guild of {seed}?", {"hops": 1}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        share = sum(letter.isalpha() for letter in action) / max(1, len(action))
        return " Go on." if self.turn == 1 else "", share, self.turn == 2, False, {"hops": 1, "turn": self.turn}


@pytest.fixture(scope="module", autouse=True)
def letters() -> Iterator[None]:
    """The environment, and environment variables as they were: a local cluster sets some for this process."""
    before = dict(os.environ)
    gym.register(ENV, entry_point=Letters)
    yield
    del gym.registry[ENV]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ARGUMENTS)


def left(before: set[threading.Thread]) -> set[threading.Thread]:
    """Threads that have come since and do not go; those that are told to end get a moment."""
    for _ in range(100):
        new = set(threading.enumerate()) - before
        if not new:
            break
        time.sleep(0.02)
    return new


def test_a_whole_step(config: Config, tiny_folder: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    plays = seeds.training(config.seed, 0, 0, prompts=4, group_size=4)
    with open_cluster(config, str(tiny_folder)) as cluster:
        cluster.publish(3)
        rollout = cluster.collect(plays, {}, 1.0)
        groups = by_group(rollout.trajectories)
        assert [[t.seed for t in group] for group in groups] == [[seed] * 4 for seed in range(4)]
        assert {version for t in rollout.trajectories for version in t.versions} == {3}
        # A turn that is cut off ends its episode.
        assert all(len(t.turns) == 2 for t in rollout.trajectories if t.status is Status.TERMINATED)
        assert any(len(t.turns) == 2 for t in rollout.trajectories)

        scores = cluster.score(rollout.trajectories, frozenset({"old", "reference"}))
        for trajectory, old, reference in zip(rollout.trajectories, scores["old"], scores["reference"], strict=True):
            assert old.shape == trajectory.ids.shape
            assert old.dtype == np.float32
            np.testing.assert_allclose(old, trajectory.logprobs, atol=1e-4)  # the engine's own, of the same weights
            np.testing.assert_array_equal(old, reference)

        algorithm = GRPO(config.objective)
        credits, update = algorithm.credit(groups, Scores()), algorithm.share(groups)
        columns = {"reference": scores["reference"]}
        batches = pack(rollout.trajectories, config.trainer.max_batch_tokens, credits, update, columns)
        metrics = cluster.step(batches, 1e-2, {"kl": 0.1})
        assert metrics["ratio_gap"] < 1e-4
        assert metrics["gradient_norm"] > 0

        cluster.publish(4)
        again = cluster.collect(plays, {}, 1.0)
        assert {version for t in again.trajectories for version in t.versions} == {4}
        changed = cluster.score(rollout.trajectories, frozenset({"old"}))["old"]
        assert max(np.abs(new - old).max() for new, old in zip(changed, scores["old"], strict=True)) > 1e-3

        cluster.save(tmp_path / "checkpoint", {"step": 1})
        cluster.load(tmp_path / "checkpoint")
    cluster.close()
    assert not left(before)


def test_the_same_plays_give_the_same_episodes(config: Config, tiny_folder: Path) -> None:
    """A group alone is sampled exactly as it is among others."""
    plays = seeds.training(config.seed, 5, 0, prompts=3, group_size=2)
    with open_cluster(config, str(tiny_folder), trainers=False) as cluster:
        together = cluster.collect(plays, {}, 1.0).trajectories
        alone = cluster.collect(plays[2:4], {}, 1.0).trajectories
    assert [t.ids.tolist() for t in alone] == [t.ids.tolist() for t in together[2:4]]


def test_an_environments_fault_arrives_as_itself(config: Config, tiny_folder: Path) -> None:
    with (
        open_cluster(config, str(tiny_folder), trainers=False) as cluster,
        pytest.raises(EnvironmentFault, match=r"^ConnectionError: no letters here$") as caught,
    ):
        cluster.collect(seeds.evaluation([1, 2]), {"broken": True}, 0.0)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_several_engines_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--cluster local has one engine and one trainer, not 2 and 1"):
        LocalCluster(load_config([*ARGUMENTS, "--engine.count", "2"]), str(tiny_folder))


def test_a_renderer_that_does_not_fit_leaves_nothing_running(tiny_folder: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="has no chat template"):
        LocalCluster(load_config([*ARGUMENTS, "--renderer", "templated"]), str(tiny_folder))
    assert not left(before)


ENDLESS = """
import sys, time
import gymnasium as gym
from tests.learners import test_local_cluster as here
from learners import seeds
from learners.cluster import open_cluster
from learners.config import load_config

class Endless(here.Letters):
    def step(self, action):
        time.sleep(0.01)
        return " Go on.", 0.0, False, False, {}

gym.register(here.ENV, entry_point=Endless)
with open_cluster(load_config([*here.ARGUMENTS, "--engine.max-length", "250"]), sys.argv[1]) as cluster:
    assert "ray" not in sys.modules
    print("playing", flush=True)
    while True:
        cluster.collect(seeds.evaluation(range(64)), {}, 1.0)
"""


def test_ctrl_c_ends_a_rollout_at_once(tiny_folder: Path) -> None:
    """The waiting main thread gets the interrupt, closing stops engine and threads, and Ray was never loaded."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tiny_folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "playing\n", process.communicate()[1]
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert time.monotonic() - start < 5
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "never" not in err
    assert "destroyed" not in err
