"""Episodes of an environment that knows nothing of this project, played by an engine that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from learners import seeds
from learners.environment import EnvironmentFault
from learners.rollout import Limits, Rollout
from learners.types import Play, Trajectory
from tests.learners.doors import Doors, Script, careful, play, plays, worker


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


pytestmark = pytest.mark.usefixtures("doors")


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
    """The prompt, one turn, and an observation that leaves no room for a turn. What the turn cost counts."""
    used = sum(len(tokenizer.encode(text)) for text in ("door 4:", " I look.", " gold4 "))
    engine = Script(tokenizer, careful)
    (trajectory,) = play(engine, [4], Limits(used, 30), env_kwargs={"cost": 0.25}).trajectories
    assert (trajectory.status, trajectory.reward) == ("length", -0.25)
    assert [turn.reward for turn in trajectory.turns] == [-0.25]
    assert trajectory.info["searches"] == 1
    assert len(engine.calls) == 1
    assert tokenizer.decode(trajectory.ids[trajectory.mask]) == " I look."


def test_a_turn_that_is_cut_off_is_not_an_action(tokenizer: Any) -> None:
    """The environment does not see it: the episode has the cost of its look, and the policy's tokens are trained on."""
    room = len(tokenizer.encode(" I look."))

    def say(text: str) -> str:
        return " it is gold4 and more and more and more" if "gold" in text else " I look."

    (trajectory,) = play(Script(tokenizer, say), [4], Limits(200, room), env_kwargs={"cost": 0.25}).trajectories
    cut = tokenizer.encode(say("gold"))[:room]
    assert (trajectory.status, trajectory.reward) == ("length", -0.25)
    assert [(turn.reward, turn.info) for turn in trajectory.turns] == [(-0.25, {"searches": 1, "hops": 0}), (0.0, {})]
    assert trajectory.info == {"searches": 1, "hops": 0}, "what the environment last said"
    assert trajectory.ids[trajectory.mask][-room:].tolist() == cut
    assert trajectory.text[-1] == ("policy", tokenizer.decode(cut))


def test_the_length_of_an_episode_cuts_a_turn_off_too(tokenizer: Any) -> None:
    """And a turn that is whole as its last token comes is an action."""
    prompt, turn = len(tokenizer.encode("door 4:")), len(tokenizer.encode(" it is gold4"))
    engine = Script(tokenizer, lambda text: " it is gold4")
    found = [play(engine, [4], Limits(prompt + turn - less, 30)).trajectories[0] for less in (1, 0)]
    assert [(t.status, t.reward) for t in found] == [("length", 0.0), ("terminated", 1.0)]


@pytest.mark.parametrize("length", range(1, 40))
def test_no_episode_is_longer_than_its_budget(tokenizer: Any, length: int) -> None:
    engine = Script(tokenizer, careful)
    (trajectory,) = play(engine, [4], Limits(length, 5)).trajectories
    assert all(sampling.max_tokens <= min(5, length - len(ids)) for ids, sampling in engine.calls)
    sampled = trajectory.mask.nonzero()[0]
    assert not len(sampled) or sampled[-1] < length
    if length >= len(tokenizer.encode("door 4:")):
        assert len(trajectory.ids) <= length


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
