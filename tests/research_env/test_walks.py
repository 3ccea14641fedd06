"""What several environments play together, with autoreset: different questions, for as long as can be."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from research_env.vector import BatchedVectorEnv

ANSWER = r"<think> x </think> <answer> \boxed{Nobody} </answer>"
KINDS: dict[str, Any] = {
    "sync": SyncVectorEnv,
    "batched": BatchedVectorEnv,
    "async": lambda makers: AsyncVectorEnv(makers, shared_memory=False),
}


def played(envs: VectorEnv, seed: int, rounds: int) -> list[str]:
    """Ids of the questions that all environments play in so many episodes each."""
    _, infos = envs.reset(seed=seed)
    found = list(infos["question_id"])
    for _ in range(rounds - 1):
        envs.step((ANSWER,) * envs.num_envs)  # ends every episode
        _, _, terminations, _, infos = envs.step((ANSWER,) * envs.num_envs)  # takes the next question
        assert not terminations.any()
        found += list(infos["question_id"])
    envs.close()
    return found


def makers(count: int, **kwargs: Any) -> list[Any]:
    return [lambda: gym.make("research_env:ReSearch-Synthetic-v0", corpus="none", **kwargs)] * count


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_episodes_are_sixteen_questions(kind: str) -> None:
    assert len(set(played(KINDS[kind](makers(4)), seed=0, rounds=4))) == 16


@pytest.mark.parametrize(
    ("entities", "hops", "rounds"),  # of 60, 180, 82, 246, 540, 600 and 1,800 questions
    [
        (100, [1], 12), (100, [1, 2, 3], 20), (137, [1], 7), (137, [1, 2, 3], 35), (300, [1, 2, 3], 80),
        (1000, [1], 90), (1000, [1, 2, 3], 140),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 3, 1_000_003])
def test_four_walks_stay_apart(entities: int, hops: list[int], rounds: int, seed: int) -> None:
    found = played(SyncVectorEnv(makers(4, num_entities=entities, hops=hops)), seed, rounds)
    assert len(set(found)) == len(found) == 4 * rounds


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("seed", [0, 5])
def test_a_stride_keeps_them_apart_until_all_is_asked(count: int, seed: int) -> None:
    settings = {"num_entities": 100, "hops": [1], "stride": count}
    size = len(gym.make("research_env:ReSearch-Synthetic-v0", **settings).unwrapped)
    found = played(SyncVectorEnv(makers(count, **settings)), seed, rounds=size // count)
    assert len(set(found)) == len(found) == size // count * count


def test_a_stride_is_one_or_more() -> None:
    with pytest.raises(Exception, match="stride=0: give 1 or more"):
        makers(1, stride=0)[0]()
