"""A worker that has lost too many threads to calls that never return: Ray replaces it, and one process ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners import seeds
from learners.cluster import open_cluster
from learners.config import Config, load_config
from learners.environment import EnvironmentFault

MODULE = """
import os
import time
from pathlib import Path

import gymnasium as gym


class Hung(gym.Env):
    metadata = {"render_modes": [], "stop": list("aeiou ,.")}

    def __init__(self, folder):
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0)
        self.folder = Path(folder)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        return f"Who founded the guild of {seed}?", {}

    def step(self, action):
        while self.seed == 3 and (self.folder / "hang").exists():
            time.sleep(0.05)
        return "", 1.0, True, False, {"process": os.getpid()}


gym.register("Hung-v0", entry_point=Hung)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    (tmp_path / "hung_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    # Processes that Ray starts have this environment.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])]))
    yield load_config([
        "--env", "hung_env:Hung-v0", "--env-kwargs", f'{{"folder": "{tmp_path}"}}', "--engine.kind", "transformers",
        "--engine.max-length", "64", "--engine.max-sequences", "2", "--engine.threads", "1", "--trainer.threads", "1",
        "--max-turn-tokens", "16", "--max-retries", "1", "--research.step-timeout", "1",
    ])  # fmt: skip
    (tmp_path / "hang").unlink(missing_ok=True)


def test_ray_puts_a_new_worker_in_its_place(config: Config, tiny_folder: Path, tmp_path: Path) -> None:
    """With the weights of now and not those it began with. Episode 3 is tried twice and dropped."""
    plays, kwargs = seeds.evaluation([1, 2, 3, 4, 5]), {"folder": str(tmp_path)}
    with open_cluster(config, str(tiny_folder)) as cluster:
        cluster.publish(7)
        first = cluster.collect(plays, kwargs, 0.0)
        (tmp_path / "hang").touch()
        second = cluster.collect(plays, kwargs, 0.0)
        (tmp_path / "hang").unlink()
        third = cluster.collect(plays, kwargs, 0.0)
    assert (second.retried, second.dropped, second.lost, len(second.trajectories)) == (1, 1, 2, 4)
    assert "has not returned for 1 s" in second.reason
    assert (third.retried, third.dropped, third.lost) == (0, 0, 0)
    assert [t.ids.tolist() for t in third.trajectories] == [t.ids.tolist() for t in first.trajectories]
    assert {version for t in third.trajectories for version in t.versions} == {7}
    processes = [{t.info["process"] for t in rollout.trajectories if "process" in t.info} for rollout in (first, third)]
    assert len(processes[0]) == len(processes[1]) == 1
    assert processes[0] != processes[1]


def test_one_process_ends_with_a_line(config: Config, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    local = config.model_copy(update={"cluster": "local"})
    start = time.monotonic()
    with (
        pytest.raises(EnvironmentFault, match=r"has not returned for 1 s.*--resume, or use --cluster ray") as raised,
        open_cluster(local, str(tiny_folder), trainers=False) as cluster,
    ):
        cluster.collect(seeds.evaluation([1, 2, 3, 4, 5]), {"folder": str(tmp_path)}, 0.0)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - start < 60
