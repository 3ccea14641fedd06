"""Episodes of an environment that knows nothing of this project, played by an engine that follows a script."""

from __future__ import annotations

import asyncio
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from transformers import AutoTokenizer

from learners.environment import EnvironmentFault
from learners.rollout import Limits, Rollout, Worker
from learners.types import Completion, Sampling, Trajectory

ENV = "Doors-v0"
ROOMY = Limits(length=200, turn=30)


class Doors(gym.Env[str, str]):
    """Behind door `seed` lies the word `gold<seed>`: "look" tells it, saying it wins 1.0, a third look truncates."""

    metadata: dict[str, Any] = {"render_modes": [], "stop": ["look."]}
    outages: ClassVar[Counter[tuple[str, int]]] = Counter()
    """`(where, seed)` -> times that it still fails there."""
    made: ClassVar[int] = 0

    def __init__(self, greeting: str = "door", render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)
        self.greeting, self.render_mode = greeting, render_mode
        Doors.made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.looks = seed or 0, 0
        self.fail("reset")
        return f"{self.greeting} {seed}:", {"searches": 0, "hops": self.seed % 2}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.fail("step")
        if action.endswith("look."):
            self.looks += 1
            info = {"searches": self.looks, "hops": self.seed % 2}
            if self.looks == 3:
                return "", 0.0, False, True, info
            return f" gold{self.seed} ", 0.0, False, False, info
        won = f"gold{self.seed}" in action
        return "", float(won), True, False, {"searches": self.looks, "hops": self.seed % 2, "said": action}

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


def play(
    engine: Script, seeds: Sequence[int], limits: Limits = ROOMY, temperature: float = 1.0,
    env_kwargs: Mapping[str, Any] | None = None, **settings: Any,
) -> Rollout:  # fmt: skip
    async def collect() -> Rollout:
        worker = Worker(engine, engine.tokenizer, ENV, limits, **{"concurrency": 64} | settings)
        return await worker.collect(seeds, env_kwargs or {}, temperature, sampling_seed=5)

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
    assert trajectory.versions == (7, 7)
    assert trajectory.info == {"searches": 1, "hops": 0, "said": " it is gold4"}


def test_trajectories_come_in_the_order_of_the_seeds(tokenizer: Any) -> None:
    seeds = [3, 3, 1, 2, 2, 0]
    rollout = play(Script(tokenizer, careful), seeds)
    assert [trajectory.seed for trajectory in rollout.trajectories] == seeds
    assert [trajectory.reward for trajectory in rollout.trajectories] == [1.0] * 6
    assert (rollout.retried, rollout.dropped) == (0, 0)


def test_what_the_engine_is_asked(tokenizer: Any) -> None:
    """The ids so far, the environment's stop strings, the turn's budget, and a seed of its own for every turn."""
    engine = Script(tokenizer, careful)
    rollout = play(engine, [1, 1, 2], temperature=0.8)
    assert len(engine.calls) == 6
    assert {(s.temperature, s.max_tokens, s.stop) for _, s in engine.calls} == {(0.8, 30, ("look.",))}
    assert len({s.seed for _, s in engine.calls}) == 6
    asked = sorted(ids for ids, _ in engine.calls)
    trajectory = rollout.trajectories[2]
    prompt, second = tokenizer.encode("door 2:"), tokenizer.encode(" it is gold2")
    assert prompt in asked
    assert trajectory.ids[: -len(second)].tolist() in asked


def test_greedy_episodes_need_no_seed(tokenizer: Any) -> None:
    engine = Script(tokenizer, careful)
    play(engine, [1], temperature=0.0)
    assert {s.seed for _, s in engine.calls} == {None}


def test_the_environment_may_truncate(tokenizer: Any) -> None:
    (trajectory,) = play(Script(tokenizer, lambda text: " look."), [6]).trajectories
    assert (trajectory.status, trajectory.reward, trajectory.info["searches"]) == ("truncated", 0.0, 3)
    assert len(trajectory.versions) == 3


@pytest.mark.parametrize(("looks", "reward"), [(0, 0.0), (1, 1.0 - 0.25), (2, 1.0 - 0.5), (3, -0.75)])
def test_a_search_costs(tokenizer: Any, looks: int, reward: float) -> None:
    def say(text: str) -> str:
        return " look." if text.count("look.") < looks else f" {text.split()[-1]}"

    (trajectory,) = play(Script(tokenizer, say), [5], search_cost=0.25).trajectories
    assert trajectory.reward == pytest.approx(reward)


def test_the_token_budget_ends_an_episode_without_reward(tokenizer: Any) -> None:
    """Whatever it would still have got: the prompt, one turn, and an observation that leaves no room for a turn."""
    used = sum(len(tokenizer.encode(text)) for text in ("door 4:", " I look.", " gold4 "))
    engine = Script(tokenizer, careful)
    (trajectory,) = play(engine, [4], Limits(used, 30)).trajectories
    assert (trajectory.status, trajectory.reward) == ("length", 0.0)
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
        worker = Worker(engine, tokenizer, ENV, Limits(200, 30), concurrency=3)
        return [
            await worker.collect(range(20), {}, 1.0, 0),
            await worker.collect(range(4), {"greeting": "gate"}, 1.0, 0),
        ]

    first, second = asyncio.run(twice())
    assert Doors.made <= 6
    assert engine.most <= 3
    assert {t.text[0][1].split()[0] for t in first.trajectories} == {"door"}
    assert {t.text[0][1].split()[0] for t in second.trajectories} == {"gate"}


def test_a_chat_template_wraps_the_prompt_alone(tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [reply]"
    (trajectory,) = play(Script(tokenizer, careful), [4], chat=True).trajectories
    assert spans(trajectory)[0] == (False, tokenizer.encode("[user] door 4: [reply]"))
    assert trajectory.reward == 1.0
