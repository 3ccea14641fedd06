"""An environment that misbehaves: what it gives is made fit or refused, and a call that never returns is left."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from learners import metrics
from learners.environment import EnvironmentFault
from learners.errors import Fault
from learners.report import Reporter
from learners.rollout import Rollout
from tests.learners.doors import ENV, Doors, Script, careful, play, plays, worker

pytestmark = pytest.mark.usefixtures("doors")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Doors, tuple], tuple]], None]:
    """Changes what `Doors.step` returns."""
    usual = Doors.step

    def change(function: Callable[[Doors, tuple], tuple]) -> None:
        monkeypatch.setattr(Doors, "step", lambda self, action: function(self, usual(self, action)))

    return change


@pytest.mark.parametrize("value", [math.nan, np.float32("-inf"), None, "1.0", np.array([1.0, 2.0])], ids=repr)
def test_a_reward_that_is_no_finite_number_is_a_fault(tokenizer: Any, step: Any, value: Any) -> None:
    """Of one episode in three: retried, dropped, counted, and named with its value and its step."""
    step(lambda env, answer: (answer[0], value if env.seed == 3 and answer[2] else answer[1], *answer[2:]))
    rollout = play(Script(tokenizer, careful), [1, 3, 2], max_retries=2)
    assert (rollout.retried, rollout.dropped, rollout.lost) == (2, 1, 0)
    assert [(t.seed, t.reward) for t in rollout.trajectories] == [(1, 1.0), (2, 1.0)]
    assert (
        rollout.reason
        == f"environment {ENV}: the reward of step 2 of seed 3 is wrong: {value!r} is not a finite number"
    )
    with pytest.raises(EnvironmentFault, match="step 2 of seed 3"):
        play(Script(tokenizer, careful), [3])


def test_a_reward_may_be_an_array_of_one_number(tokenizer: Any, step: Any) -> None:
    step(lambda env, answer: (answer[0], np.array([answer[1]], np.float32), *answer[2:]))
    (trajectory,) = play(Script(tokenizer, careful), [3]).trajectories
    assert (type(trajectory.reward), trajectory.reward) == (float, 1.0)


def test_info_of_any_kind_reaches_reports_and_groups(tokenizer: Any, step: Any, tmp_path: Path) -> None:
    """NumPy values, paths, sets and halves of characters: one row of JSON each, in the right group."""
    more = {"hops": np.int64(2), "em": np.float32(1.0), "format_ok": np.bool_(True), "where": Path("a"),
            "seen": {2, 1}, "odd": "a\ud800", "score": math.nan, "vector": np.ones(2)}  # fmt: skip
    step(lambda env, answer: (*answer[:4], answer[4] | more))
    trajectories = play(Script(tokenizer, careful), [1, 2]).trajectories
    measured = metrics.by_hops(trajectories)
    assert (measured["em"], measured["questions"]) == ({"2": 1.0}, {"2": 2})
    reporter = Reporter(tmp_path)
    reporter.episodes("after", trajectories)
    reporter.transcripts("after", trajectories)
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    expected = {"hops": 2, "em": 1.0, "format_ok": True, "where": "a", "seen": [1, 2], "odd": "a\ufffd", "score": None,
                "vector": [1.0, 1.0]}  # fmt: skip
    assert [{key: row["info"][key] for key in more} for row in rows] == [expected, expected]


def test_half_a_character_kills_nothing(tokenizer: Any, step: Any, tmp_path: Path) -> None:
    """In the prompt, in an observation, and in an error."""
    step(lambda env, answer: (answer[0] + "\ud83d", *answer[1:]))
    rollout = play(Script(tokenizer, careful), [4], env_kwargs={"greeting": "door\udcff"})
    (trajectory,) = rollout.trajectories
    assert [text for who, text in trajectory.text if who != "policy"] == ["door\ufffd 4:", " gold4 \ufffd", "\ufffd"]
    Reporter(tmp_path).transcripts("after", rollout.trajectories)

    def fail(env: Doors, answer: tuple) -> tuple:
        raise ValueError("no \ud83d")

    step(fail)
    with pytest.raises(EnvironmentFault, match="ValueError: no \ufffd"):
        play(Script(tokenizer, careful), [4])


@pytest.mark.parametrize("answer", [(b"text", 0.0, True, False, {}), ("", 0.0, True, False, None), ("", 0.0, True, {})])
def test_an_answer_of_another_shape_is_a_fault(tokenizer: Any, step: Any, answer: tuple) -> None:
    step(lambda env, usual: answer)
    with pytest.raises(EnvironmentFault) as raised:
        play(Script(tokenizer, careful), [3])
    assert "\n" not in str(raised.value)


def test_a_finish_that_nobody_knows_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of somebody else's may have words of its own."""
    usual = Script.generate

    async def generate(self: Script, *given: Any) -> Any:
        return replace(await usual(self, *given), finish="stop_token")

    monkeypatch.setattr(Script, "generate", generate)
    with pytest.raises(Fault, match="the engine gave the finish 'stop_token'; give 'stop' or 'length'"):
        play(Script(tokenizer, careful), [3])


class Gate:
    """Holds calls of `Doors` until it is opened; counts what goes on in each environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.held: Counter[tuple[str, int]] = Counter()
        """`(where, seed)` -> times that a call there hangs."""
        self.hung: list[Doors] = []
        self.used_after: list[Doors] = []
        self.closed: list[Doors] = []
        usual = Doors.fail

        def fail(env: Doors, where: str) -> None:
            if env in self.hung:
                self.used_after.append(env)
            if self.held[where, env.seed] > 0:
                self.held[where, env.seed] -= 1
                self.hung.append(env)
                self.opened.wait()
            usual(env, where)

        monkeypatch.setattr(Doors, "fail", fail)
        monkeypatch.setattr(Doors, "close", lambda env: self.closed.append(env))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


def test_a_step_that_never_returns_is_retried_and_its_environment_left_alone(tokenizer: Any, gate: Gate) -> None:
    """Once in `step` and once in `reset`; when they return at last, their threads close them."""
    gate.held.update({("step", 3): 1, ("reset", 3): 1})
    rollout = play(Script(tokenizer, careful), [1, 3, 2], step_timeout=0.3)
    assert (rollout.retried, rollout.dropped, rollout.lost) == (2, 0, 2)
    assert [(t.seed, t.reward) for t in rollout.trajectories] == [(1, 1.0), (3, 1.0), (2, 1.0)]
    assert f"environment {ENV}, seed 3: a call has not returned for 0.3 s" in rollout.reason
    assert not gate.closed
    gate.opened.set()
    wait_for(lambda: len(gate.closed) == 2)
    assert gate.closed == gate.hung or gate.closed == gate.hung[::-1]
    assert not gate.used_after


def test_one_that_hangs_again_and_again_is_dropped(tokenizer: Any, gate: Gate) -> None:
    gate.held["step", 3] = 99
    rollout = play(Script(tokenizer, careful), [1, 3, 2], step_timeout=0.2, max_retries=2)
    assert (rollout.retried, rollout.dropped, rollout.lost) == (2, 1, 3)
    assert [t.seed for t in rollout.trajectories] == [1, 2]


def test_a_worker_is_worn_when_a_quarter_of_its_threads_are_lost(tokenizer: Any, gate: Gate) -> None:
    """Of eight: one is not enough, two are. Threads that come back do not count."""
    gate.held["step", 3] = 1

    async def collect() -> tuple[Rollout, Rollout, Rollout]:
        eight = worker(Script(tokenizer, careful), concurrency=8, step_timeout=0.2)
        first = await eight.collect(plays([1, 3]), {}, 1.0)
        gate.held["step", 3] = 1
        second = await eight.collect(plays([1, 3]), {}, 1.0)
        gate.opened.set()
        await asyncio.to_thread(wait_for, lambda: len(gate.closed) == 2)
        await asyncio.sleep(0.1)
        return first, second, await eight.collect(plays([1, 3]), {}, 1.0)

    assert [(r.lost, r.worn) for r in asyncio.run(collect())] == [(1, False), (1, True), (0, False)]


def test_waiting_for_a_thread_is_no_fault(tokenizer: Any, step: Any) -> None:
    """Twelve steps of 0.1 s on two threads: the last waits for 0.5 s, and no call takes longer than 0.4 s."""

    def slow(env: Doors, answer: tuple) -> tuple:
        time.sleep(0.1)
        return answer

    step(slow)
    rollout = play(Script(tokenizer, lambda text: "no"), range(12), concurrency=2, step_timeout=0.4)
    assert (rollout.retried, rollout.lost, len(rollout.trajectories)) == (0, 0, 12)


def test_an_environment_that_always_hangs_ends_the_rollout(tokenizer: Any, gate: Gate) -> None:
    """It is not played to the end of a long list."""
    gate.held.update({("step", seed): 99 for seed in range(100)})
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"research\.step_timeout"):
        play(Script(tokenizer, careful), range(100), concurrency=4, step_timeout=0.1)
    assert time.monotonic() - start < 3


def test_every_environment_is_closed(tokenizer: Any, gate: Gate) -> None:
    """Those that are idle, that failed, and that play when the worker is closed; and one in the middle of a step."""
    Doors.outages["step", 2] = 1
    gate.held["step", 5] = 1
    made: list[Doors] = []

    async def collect() -> None:
        several = worker(Script(tokenizer, careful), concurrency=4)
        usual = several._make
        several._make = lambda kwargs: made.append(env := usual(kwargs)) or env
        await several.collect(plays([1, 2, 3]), {}, 1.0)
        playing = asyncio.create_task(several.collect(plays([4, 5, 6]), {}, 1.0))
        await asyncio.to_thread(wait_for, lambda: gate.hung)
        threading.Timer(0.3, gate.opened.set).start()
        await several.close()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(collect())
    assert Doors.made == len(made) >= 4
    assert Counter(map(id, gate.closed)) == Counter(id(env.unwrapped) for env in made)


HUNG = """
import sys, time
import gymnasium as gym
from transformers import AutoTokenizer
from tests.learners import doors

class Hung(doors.Doors):
    def step(self, action):
        if self.seed == 3:
            time.sleep(3600)
        return super().step(action)

gym.register(doors.ENV, entry_point=Hung)
engine = doors.Script(AutoTokenizer.from_pretrained(sys.argv[1]), doors.careful)
rollout = doors.play(engine, [1, 2, 3], max_retries=0, step_timeout=0.2)
print(rollout.dropped, rollout.lost, flush=True)
"""


def test_a_lost_thread_does_not_keep_the_process_from_ending(tiny_folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HUNG, str(tiny_folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.stdout, ended.returncode) == ("1 1\n", 0), ended.stderr


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
