"""Many episodes in step are the same episodes, with one call of the retriever for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from research_env import loading
from research_env.errors import ConfigurationError, RetrievalError
from research_env.types import Hit
from research_env.vector import BatchedVectorEnv

N = 6


def makers(**kwargs: Any) -> list:
    return [lambda: gym.make("research_env:ReSearch-Synthetic-v0", max_searches=2, **kwargs)] * N


def turns(envs: SyncVectorEnv, rng: np.random.Generator) -> tuple[str, ...]:
    """Some search, some answer, some are malformed."""
    names = ["Amber", "Kelmon", "Falls", "Press"]
    forms = ["<think> x </think> <search> {} </search>"] * 4 + [
        r"<think> x </think> <answer> \boxed{{{}}} </answer>",
        "{}",
    ]
    return tuple(forms[rng.integers(len(forms))].format(rng.choice(names)) for _ in range(N))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episodes_are_those_of_gymnasiums_own_vector(mode: AutoresetMode) -> None:
    ours, theirs = BatchedVectorEnv(makers(), autoreset_mode=mode), SyncVectorEnv(makers(), autoreset_mode=mode)
    first, second = ours.reset(seed=3), theirs.reset(seed=3)
    assert first[0] == second[0]
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = turns(ours, rng)
        one, two = ours.step(actions), theirs.step(actions)
        assert one[0] == two[0]
        for ours_, theirs_ in zip(one[1:4], two[1:4], strict=True):
            np.testing.assert_array_equal(ours_, theirs_)
        assert repr(one[4]) == repr(two[4])


class Counting:
    """A retriever that counts, and fails for one query."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.bad = ""

    def outcomes(self, queries: Sequence[str], top_k: int) -> list[list[Hit] | Exception]:
        self.asked.append(list(queries))
        return [RetrievalError("away") if query == self.bad else [] for query in queries]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(loading, "retriever", lambda *_: made)
    return made


def searches(*queries: str) -> tuple[str, ...]:
    return tuple(f"<think> x </think> <search> {query} </search>" for query in queries)


def test_one_step_is_one_call(counting: Counting) -> None:
    envs = BatchedVectorEnv(makers())
    envs.reset(seed=0)
    *_, infos = envs.step((*searches("a", "b", "c", "d"), "no tags", *searches("e")))
    assert counting.asked == [["a", "b", "c", "d", "e"]]
    assert infos["searches"].tolist() == [1, 1, 1, 1, 0, 1]


def test_one_outage_is_raised_before_anybody_has_stepped(counting: Counting) -> None:
    envs = BatchedVectorEnv(makers())
    envs.reset(seed=0)
    counting.bad = "c"
    actions = searches("a", "b", "c", "d", "e", "f")
    for _ in range(2):
        with pytest.raises(RetrievalError, match="away"):
            envs.step(actions)
    counting.bad = ""
    *_, infos = envs.step(actions)
    assert infos["turn"].tolist() == infos["searches"].tolist() == [1] * N
    assert counting.asked == [list("abcdef"), ["c"], ["c"]], "only what failed runs again"


def test_environments_that_search_different_things_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"top_k=3 and 5"):
        BatchedVectorEnv([*makers(), *makers(top_k=3)])
    with pytest.raises(ConfigurationError, match="world_seed"):
        BatchedVectorEnv([*makers(world_seed=1), *makers(world_seed=2)])
    with pytest.raises(ConfigurationError, match="SyncVectorEnv"):
        BatchedVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ConfigurationError, match="changes actions"):
        BatchedVectorEnv([lambda: gym.wrappers.TransformAction(makers()[0](), str.lower, None)])
    with pytest.raises(ConfigurationError, match="empty"):
        BatchedVectorEnv([])


@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_a_wrong_number_of_actions_moves_nobody(counting: Counting, count: int) -> None:
    envs = BatchedVectorEnv(makers())
    envs.reset(seed=0)
    with pytest.raises((ValueError, IndexError)):
        envs.step(searches(*"abcdefgh"[:count]))
    *_, infos = envs.step(searches(*"abcdef"))
    assert infos["turn"].tolist() == [1] * N


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("first", [0, N - 1])
def test_masks_say_which_episodes_have_ended(counting: Counting, mode: AutoresetMode, first: int) -> None:
    """Whichever ends first: a running episode has no exact match, and not one of 0.0."""
    envs = BatchedVectorEnv(makers(), autoreset_mode=mode)
    envs.reset(seed=0)
    actions = list(searches(*"abcdef"))
    actions[first] = r"<think> x </think> <answer> \boxed{Nobody} </answer>"
    *_, terminations, _, infos = envs.step(tuple(actions))
    ended = [at == first for at in range(N)]
    assert terminations.tolist() == ended
    if mode == AutoresetMode.SAME_STEP:  # where the ended episode's `info` is apart from that of the next one
        infos = infos["final_info"]
    for key in ("em", "f1", "format_ok", "golden_answers", "gold_found", "evidence", "answer_in_context", "answer"):
        assert infos[f"_{key}"].tolist() == ended, key
    *_, infos = envs.step(searches(*"abcdef")) if mode != AutoresetMode.DISABLED else (infos,)
    assert mode == AutoresetMode.DISABLED or "em" not in infos


def test_sampled_actions_are_of_each_environments_own_episode() -> None:
    """Gymnasium's own vectors sample from copies that know no episode; what they give is legal all the same."""
    envs, theirs = BatchedVectorEnv(makers()), SyncVectorEnv(makers())
    envs.action_space.seed(0)
    observations, _ = envs.reset(seed=0)
    for text, observation in zip(envs.action_space.sample(), observations, strict=True):
        name = text.partition("<search> ")[2].partition(" </search>")[0]
        assert name in observation.partition("Question: ")[2]
    theirs.reset(seed=0)
    assert not theirs.step(theirs.action_space.sample())[2].any()


@pytest.mark.parametrize("actions", ["six letters"[:N], b"123456", None])
def test_one_text_is_no_sequence_of_turns(counting: Counting, actions: Any) -> None:
    envs = BatchedVectorEnv(makers())
    envs.reset(seed=0)
    with pytest.raises(TypeError, match="give a sequence of 6 actions"):
        envs.step(actions)
