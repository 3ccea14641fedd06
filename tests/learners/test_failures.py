"""Engines and trainers that die or fail: who it was, in one line, and what can still be saved."""

from __future__ import annotations

import os
import signal
import string
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import psutil
import pytest
import ray

from learners import preflight, seeds
from learners.cluster import open_cluster
from learners.cluster.driver import RayCluster
from learners.cluster.failures import failure, get
from learners.cluster.local import LocalCluster
from learners.config import load_config
from learners.environment import EnvironmentFault
from learners.errors import ActorFault, Fault
from learners.types import Sampling

ENV = "EndlessTurns-v0"
ARGUMENTS = [
    "--env", ENV, "--engine.kind", "transformers", "--engine.max-length", "200", "--engine.threads", "1",
    "--trainer.threads", "1", "--max-turn-tokens", "6",
]  # fmt: skip


class Endless(gym.Env[str, str]):
    """Goes on until the token budget ends it."""

    def __init__(self) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return f"Who founded the guild of {seed}?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(0.05)
        return " Go on.", 0.0, False, False, {}


gym.register(ENV, entry_point=Endless)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Actor:
    def pid(self) -> int:
        return os.getpid()

    def wait(self, seconds: float, *_: object) -> None:
        time.sleep(seconds)

    def fail(self, error: Exception) -> None:
        raise error


@pytest.mark.usefixtures("local_ray")
def test_a_killed_actor_is_named_and_the_others_are_not_waited_for() -> None:
    actors = [Actor.remote(), Actor.remote()]
    pids = ray.get([actor.pid.remote() for actor in actors])
    calls = {f"engine {number}": actor.wait.remote(60) for number, actor in enumerate(actors)}
    start = time.monotonic()
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(
        ActorFault, match=rf"^engine 1 died: its process {pids[1]} was killed .* out of memory"
    ) as caught:
        get(calls)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("local_ray")
def test_what_a_dead_actor_should_have_sent_is_its_fault() -> None:
    trainer, engine = Actor.remote(), Actor.remote()
    os.kill(ray.get(trainer.pid.remote()), signal.SIGKILL)
    weights = trainer.wait.remote(0)
    sent = {"engine 0": engine.wait.remote(0, weights)}
    with pytest.raises(ActorFault, match=r"^trainer 0 died: "):
        get(sent, after={"trainer 0": weights})


@pytest.mark.usefixtures("local_ray")
def test_a_fault_arrives_as_itself_and_anything_else_with_its_actor() -> None:
    actor = Actor.remote()
    with pytest.raises(EnvironmentFault) as caught:
        get({"engine 0": actor.fail.remote(EnvironmentFault("ConnectionError: no door 1"))})
    assert str(caught.value) == "ConnectionError: no door 1"
    assert type(caught.value) is EnvironmentFault
    with pytest.raises(ActorFault, match=r"^trainer 2 failed: ZeroDivisionError: of ours; RESEARCH_DEBUG=1") as odd:
        get({"trainer 2": actor.fail.remote(ZeroDivisionError("of\nours"))})
    assert "in fail" in str(odd.value.__cause__), "the actor's traceback"


@pytest.mark.usefixtures("local_ray")
def test_a_neighbour_of_a_dead_actor_is_not_blamed() -> None:
    trainers = [Actor.remote(), Actor.remote()]
    os.kill(ray.get(trainers[1].pid.remote()), signal.SIGKILL)
    calls = {"trainer 0": trainers[0].fail.remote(RuntimeError("Connection closed by peer"))}
    with pytest.raises(ActorFault, match=r"^trainer 1 died: "):
        get(calls | {"trainer 1": trainers[1].wait.remote(0)})


@pytest.mark.usefixtures("local_ray")
def test_a_real_cluster_answers_before_a_run() -> None:
    preflight._check_cluster(ray.get_runtime_context().gcs_address)


def test_a_run_starts_a_ray_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of somebody else on this machine, which Ray would find by itself."""
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", init)
    for given, expected in [(None, "local"), ("", "local"), ("auto", "auto"), ("10.0.0.1:6379", "10.0.0.1:6379")]:
        if given is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", given)
        with pytest.raises(Fault, match=f"Ray cannot start with RAY_ADDRESS={expected}: no cluster"):
            open_cluster(load_config(ARGUMENTS), "nowhere")
    assert asked == ["local", "local", "auto", "10.0.0.1:6379"]


def test_sigterm_while_ray_starts_is_as_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets handlers of its own, which end the program, first while it starts and then for good."""
    usual = signal.getsignal(signal.SIGTERM)
    started: list[Any] = []

    def start(self: RayCluster, *_: object) -> None:
        started.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    try:
        monkeypatch.setattr(ray, "init", lambda **_: sys.exit(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            open_cluster(load_config(ARGUMENTS), "nowhere")
        monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)))
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(RayCluster, "_start", start)
        with pytest.raises(KeyboardInterrupt):
            open_cluster(load_config(ARGUMENTS), "nowhere")
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert started == [signal.default_int_handler]


def test_an_engine_whose_own_process_died_names_the_usual_reason() -> None:
    dead = type("EngineDeadError", (Exception,), {})("EngineCore encountered an issue. " + "See above. " * 90)
    line = str(failure("engine 3", dead))
    assert line.startswith("engine 3 failed: EngineDeadError: EngineCore encountered an issue.")
    assert "out of memory" in line
    assert len(line) < 500


def actor_process(name: str) -> psutil.Process:
    return next(p for p in psutil.Process().children(recursive=True) if name in " ".join(p.cmdline()))


def test_a_cluster_whose_engine_and_then_whose_trainer_is_killed(tiny_folder: Path, tmp_path: Path) -> None:
    ray.shutdown()
    plays = seeds.evaluation(range(8))
    folder = tmp_path / "checkpoint"
    with open_cluster(load_config(ARGUMENTS), str(tiny_folder)) as cluster:
        actor_process("RolloutActor").kill()
        with pytest.raises(ActorFault, match=r"^engine 0 died"):
            cluster.collect(plays, {}, 1.0)
        cluster.save(folder, {"step": 3})
        assert (folder / "state.json").is_file(), "the trainer lives, and saves what it holds"
        actor_process("TrainerActor").kill()
        with pytest.raises(ActorFault, match=r"^trainer 0 died"):
            cluster.publish(1)
        with pytest.raises(Fault, match=r"^trainer 0 died"):
            cluster.save(folder, {"step": 4})
        assert '"step": 3' in (folder / "state.json").read_text()


def test_one_process_names_the_part_that_failed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(ids: object, sampling: Sampling) -> None:
        raise MemoryError("no room\nat all")

    with LocalCluster(load_config([*ARGUMENTS, "--cluster", "local"]), str(tiny_folder)) as cluster:
        assert cluster._rollout._worker is not None
        monkeypatch.setattr(cluster._rollout._worker.engine, "generate", broken)
        with pytest.raises(ActorFault, match=r"^the engine failed: MemoryError: no room at all;") as caught:
            cluster.collect(seeds.evaluation([1]), {}, 1.0)
        assert isinstance(caught.value.__cause__, MemoryError)
        cluster.save(tmp_path / "checkpoint", {"step": 3})
        with pytest.raises(ActorFault, match=r"^the trainer failed: TypeError"):
            cluster.step(None, 1e-3, {})  # type: ignore[arg-type]
        with pytest.raises(Fault, match="half of an update"):
            cluster.save(tmp_path / "checkpoint", {"step": 4})
