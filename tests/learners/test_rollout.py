"""Episodes of an environment that knows nothing of this project, played by an engine that follows a script."""

from __future__ import annotations

import asyncio
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from transformers import AutoTokenizer

from learners import environment, seeds
from learners.environment import EnvironmentFault
from learners.renderers.plain import PlainRenderer
from learners.rollout import Limits, Rollout, Worker
from learners.types import Completion, Play, Sampling, Trajectory

ENV = "Doors-v0"
ROOMY = Limits(length=200, turn=30)


class Doors(gym.Env[str, str]):
    """Behind door `seed` lies the word `gold<seed>`: "look" tells it, saying it wins 1.0, a third look truncates.

    A look costs `cost`. Every step fills the same `info`, as some environments do.
    """

    metadata: dict[str, Any] = {"render_modes": [], "stop": ["look."]}
    outages: ClassVar[Counter[tuple[str, int]]] = Counter()
    """`(where, seed)` -> times that it still fails there."""
    made: ClassVar[int] = 0

    def __init__(self, greeting: str = "door", cost: float = 0.0, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)
        self.greeting, self.cost, self.render_mode = greeting, cost, render_mode
        self.info: dict[str, Any] = {}
        Doors.made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.looks = seed or 0, 0
        self.fail("reset")
        self.info.clear()
        self.info |= {"searches": 0, "hops": self.seed % 2}
        return f"{self.greeting} {seed}:", self.info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.fail("step")
        if action.endswith("look."):
            self.looks += 1
            said = "" if self.looks == 3 else f" gold{self.seed} "
            self.info |= {"searches": self.looks, "messages": [{"role": "user", "content": said}]}
            return said, -self.cost, False, self.looks == 3, self.info
        self.info |= {"said": action, "messages": []}
        return "", float(f"gold{self.seed}" in action), True, False, self.info

    def fail(self, where: str) -> None:
        if Doors.outages[where, self.seed] > 0:
            Doors.outages[where, self.seed] -= 1
            raise ConnectionError(f"no door {self.seed}")


class Script:
    """An engine that says what `say` makes of the text so far; each token has log-probability -0.5."""

    def __init__(self, tokenizer: Any, say: Callable[[str], str], version: int = 7) -> None:
        self.tokenizer, self.say, self.version = tokenizer, say, version
        self.calls: list[tuple[list[int], Sampling]] = []
        self.active = self.most = 0

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        self.calls.append((list(ids), sampling))
        self.active += 1
        self.most = max(self.most, self.active)
        await asyncio.sleep(0.002)
        self.active -= 1
        said = self.tokenizer.encode(self.say(self.tokenizer.decode(ids)))[: sampling.max_tokens]
        return Completion(said, [-0.5] * len(said), "stop", self.version)

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        self.version = version

    async def close(self) -> None:
        pass


def careful(text: str) -> str:
    """Looks once, then says the word."""
    return f" it is {text.split()[-1]}" if "gold" in text else " I look."


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(autouse=True)
def doors() -> Iterator[None]:
    gym.register(ENV, entry_point=Doors)
    Doors.outages.clear()
    Doors.made = 0
    yield
    del gym.registry[ENV]


def plays(numbers: Sequence[int]) -> list[Play]:
    """A play for each reset seed; those of one seed are a group."""
    return [Play(seed, group=seed, sampling_seed=5 + 1_000 * at) for at, seed in enumerate(numbers)]


def worker(engine: Script, limits: Limits = ROOMY, **settings: Any) -> Worker:
    renderer = PlainRenderer(engine.tokenizer)
    return Worker(engine, renderer, partial(environment.make, ENV), limits, **{"concurrency": 64} | settings)


def play(
    engine: Script, numbers: Sequence[int], limits: Limits = ROOMY, temperature: float = 1.0,
    env_kwargs: Mapping[str, Any] | None = None, **settings: Any,
) -> Rollout:  # fmt: skip
    async def collect() -> Rollout:
        return await worker(engine, limits, **settings).collect(plays(numbers), env_kwargs or {}, temperature)

    return asyncio.run(asyncio.wait_for(collect(), 60))


def spans(trajectory: Trajectory) -> list[tuple[bool, list[int]]]:
    """Runs of sampled and other tokens, e.g. `[(False, [9, 8]), (True, [5, 17])]`."""
    runs: list[tuple[bool, list[int]]] = []
    for token, sampled in zip(trajectory.ids.tolist(), trajectory.mask.tolist(), strict=True):
        if not runs or runs[-1][0] != sampled:
            runs.append((sampled, []))
        runs[-1][1].append(token)
    return runs


def test_an_episode_becomes_a_trajectory(tokenizer: Any) -> None:
    (trajectory,) = play(Script(tokenizer, careful), [4]).trajectories
    expected = [(False, "door 4:"), (True, " I look."), (False, " gold4 "), (True, " it is gold4")]
    assert spans(trajectory) == [(sampled, tokenizer.encode(text)) for sampled, text in expected]
    assert trajectory.text == (
        ("prompt", "door 4:"), ("policy", " I look."), ("environment", " gold4 "),
        ("policy", " it is gold4"), ("environment", ""),
    )  # fmt: skip
    assert set(trajectory.logprobs[trajectory.mask].tolist()) == {-0.5}
    assert not trajectory.logprobs[~trajectory.mask].any()
    assert (trajectory.reward, trajectory.status, trajectory.seed) == (1.0, "terminated", 4)
    assert trajectory.group == 4
    assert trajectory.versions == (7, 7)
    assert trajectory.info == {"searches": 1, "hops": 0, "said": " it is gold4"}


def test_a_turn_keeps_what_the_environment_gave_for_it(tokenizer: Any) -> None:
    """Its span, its reward, its weights' version, and `info` as it was then, without the messages."""
    (trajectory,) = play(Script(tokenizer, careful), [4], env_kwargs={"cost": 0.25}).trajectories
    first, second = trajectory.turns
    assert [tokenizer.decode(trajectory.ids[t.start : t.stop]) for t in (first, second)] == [" I look.", " it is gold4"]
    assert (first.reward, first.versions, first.info) == (-0.25, (7,), {"searches": 1, "hops": 0})
    assert (second.reward, second.info) == (1.0, {"searches": 1, "hops": 0, "said": " it is gold4"})
    assert trajectory.reward == 0.75
    assert trajectory.info is second.info


def test_trajectories_come_in_the_order_of_the_seeds(tokenizer: Any) -> None:
    numbers = [3, 3, 1, 2, 2, 0]
    rollout = play(Script(tokenizer, careful), numbers)
    assert [t.seed for t in rollout.trajectories] == [t.group for t in rollout.trajectories] == numbers
    assert [trajectory.reward for trajectory in rollout.trajectories] == [1.0] * 6
    assert (rollout.retried, rollout.dropped) == (0, 0)


def test_what_the_engine_is_asked(tokenizer: Any) -> None:
    """The ids so far, the environment's stop strings, the turn's budget, and a seed of its own for every turn."""
    engine = Script(tokenizer, careful)
    rollout = play(engine, [1, 1, 2], temperature=0.8)
    assert len(engine.calls) == 6
    assert {(s.temperature, s.max_tokens, s.stop) for _, s in engine.calls} == {(0.8, 30, ("look.",))}
    assert {s.seed for _, s in engine.calls} == {5, 6, 1_005, 1_006, 2_005, 2_006}
    asked = sorted(ids for ids, _ in engine.calls)
    trajectory = rollout.trajectories[2]
    prompt, second = tokenizer.encode("door 2:"), tokenizer.encode(" it is gold2")
    assert prompt in asked
    assert trajectory.ids[: -len(second)].tolist() in asked


def test_an_episode_is_sampled_alike_wherever_it_is_played(tokenizer: Any) -> None:
    """Alone or among others: its seeds come with the play."""
    everything = seeds.training(1, 2, 10, prompts=2, group_size=2)

    def asked(some: Sequence[Play]) -> set[int | None]:
        engine = Script(tokenizer, careful)

        async def collect() -> Rollout:
            return await worker(engine).collect(some, {}, 1.0)

        asyncio.run(collect())
        return {sampling.seed for _, sampling in engine.calls}

    assert asked(everything) == asked(everything[:2]) | asked(everything[2:])


def test_greedy_episodes_need_no_seed(tokenizer: Any) -> None:
    engine = Script(tokenizer, careful)
    play(engine, [1], temperature=0.0)
    assert {s.seed for _, s in engine.calls} == {None}


def test_the_environment_may_truncate(tokenizer: Any) -> None:
    (trajectory,) = play(Script(tokenizer, lambda text: " look."), [6], env_kwargs={"cost": 0.25}).trajectories
    assert (trajectory.status, trajectory.reward, trajectory.info["searches"]) == ("truncated", -0.75, 3)
    assert len(trajectory.versions) == 3


def test_the_token_budget_ends_an_episode(tokenizer: Any) -> None:
    """The prompt, one turn, and an observation that leaves no room for a turn. The turn keeps what it was given."""
    used = sum(len(tokenizer.encode(text)) for text in ("door 4:", " I look.", " gold4 "))
    engine = Script(tokenizer, careful)
    (trajectory,) = play(engine, [4], Limits(used, 30), env_kwargs={"cost": 0.25}).trajectories
    assert (trajectory.status, trajectory.reward) == ("length", 0.0)
    assert [turn.reward for turn in trajectory.turns] == [-0.25]
    assert trajectory.info["searches"] == 1
    assert len(engine.calls) == 1
    assert tokenizer.decode(trajectory.ids[trajectory.mask]) == " I look."


@pytest.mark.parametrize("length", range(1, 40))
def test_no_episode_is_longer_than_its_budget(tokenizer: Any, length: int) -> None:
    engine = Script(tokenizer, careful)
    (trajectory,) = play(engine, [4], Limits(length, 5)).trajectories
    assert all(sampling.max_tokens <= min(5, length - len(ids)) for ids, sampling in engine.calls)
    sampled = trajectory.mask.nonzero()[0]
    assert not len(sampled) or sampled[-1] < length
    if length >= len(tokenizer.encode("door 4:")):
        assert len(trajectory.ids) <= length


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.rollout._PAUSE", 0.0)


def test_an_outage_is_retried_and_counted(tokenizer: Any) -> None:
    """Two failures in one episode, in `step` and then in `reset`, on fresh environments; nothing shows them."""
    Doors.outages.update({("step", 3): 1, ("reset", 3): 1})
    rollout = play(Script(tokenizer, careful), [1, 3, 2])
    assert (rollout.retried, rollout.dropped) == (2, 0)
    assert [(t.seed, t.reward) for t in rollout.trajectories] == [(1, 1.0), (3, 1.0), (2, 1.0)]
    assert rollout.trajectories[1].text[0] == ("prompt", "door 3:")


def test_a_lasting_outage_drops_the_episode_and_is_counted(tokenizer: Any) -> None:
    Doors.outages.update({("step", 3): 99})
    rollout = play(Script(tokenizer, careful), [1, 3, 2], max_retries=2)
    assert (rollout.retried, rollout.dropped) == (2, 1)
    assert [t.seed for t in rollout.trajectories] == [1, 2]
    assert Doors.outages["step", 3] == 99 - 3


def test_without_retries_the_first_outage_drops(tokenizer: Any) -> None:
    Doors.outages.update({("reset", 2): 1})
    rollout = play(Script(tokenizer, careful), [1, 3, 2], max_retries=0)
    assert (rollout.retried, rollout.dropped) == (0, 1)


def test_an_outage_of_most_episodes_is_an_error(tokenizer: Any) -> None:
    """Half of the episodes may be lost, not more; the error says what the environment said."""
    Doors.outages.update({("step", 1): 99, ("step", 2): 99})
    assert play(Script(tokenizer, careful), [0, 1, 2, 3]).dropped == 2
    with pytest.raises(EnvironmentFault, match=r"ConnectionError: no door [12]"):
        play(Script(tokenizer, careful), [1, 2, 3])


def test_an_engines_failure_is_not_an_outage(tokenizer: Any) -> None:
    def say(text: str) -> str:
        raise RuntimeError("the engine is gone")

    with pytest.raises(RuntimeError, match="the engine is gone"):
        play(Script(tokenizer, say), [1])


def test_environments_are_used_again(tokenizer: Any) -> None:
    """As many as play at once, not one for each episode; other arguments are other environments."""
    engine = Script(tokenizer, careful)

    async def twice() -> list[Rollout]:
        three = worker(engine, concurrency=3)
        return [
            await three.collect(plays(range(20)), {}, 1.0),
            await three.collect(plays(range(4)), {"greeting": "gate"}, 1.0),
        ]

    first, second = asyncio.run(twice())
    assert Doors.made <= 6
    assert engine.most <= 3
    assert {t.text[0][1].split()[0] for t in first.trajectories} == {"door"}
    assert {t.text[0][1].split()[0] for t in second.trajectories} == {"gate"}


def test_closing_closes_idle_environments_and_the_engine(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Doors, "close", lambda self: closed.append("environment"))
    engine = Script(tokenizer, careful)

    async def close() -> None:
        closed.append("engine")

    engine.close = close  # type: ignore[method-assign]

    async def collect() -> None:
        two = worker(engine, concurrency=2)
        await two.collect(plays(range(5)), {}, 1.0)
        assert closed == []
        await two.close()

    asyncio.run(collect())
    assert sorted(closed) == ["engine", *["environment"] * Doors.made]
