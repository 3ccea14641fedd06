"""Environments that are copied, pickled, and stepped in processes of their own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

import research_env  # noqa: F401  (registers the ids)
from research_env.shared_texts import ROOM
from research_env.spaces import Prose
from tests.research_env.test_info import FIRST, MUSIQUE, answer, search

SYNTHETIC = "ReSearch-Synthetic-v0"
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "cloudpickle": lambda env: pickle.loads(cloudpickle.dumps(env)),
    "deepcopy": copy.deepcopy,
}
LIMITS = [{}, {"max_searches": 0}, {"max_turns": 1}, {"max_searches": 0, "on_malformed": "feedback"}, {"stride": 3}]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("settings", [{}, {"reward": "research", "on_malformed": "feedback"}])
def test_a_fresh_environment_is_copied(how: str, settings: dict[str, Any], musique_home: Any) -> None:
    env = gym.make(MUSIQUE, **settings)
    other = COPIES[how](env)
    assert other.reset(seed=3) == env.reset(seed=3)
    assert other.step(search("Varn0a")) == env.step(search("Varn0a"))


@pytest.mark.parametrize("how", COPIES)
def test_an_episode_goes_on_in_a_copy(how: str, musique_home: Any) -> None:
    env = gym.make(MUSIQUE)
    env.action_space.seed(0)
    env.reset(seed=3)
    env.reset(options=FIRST)
    env.step(search("Who founded Varn0a"))
    other = COPIES[how](env)
    assert other.action_space.sample() == env.action_space.sample()
    for turn in (search("Who founded Varn0b"), answer("Varn0c")):
        assert other.step(turn) == env.step(turn)
    assert other.reset() == env.reset(), "the next question"


def test_a_pickle_does_not_hold_the_questions() -> None:
    small, large = (
        len(pickle.dumps(gym.make(SYNTHETIC, num_entities=count, disable_env_checker=True))) for count in (100, 20_000)
    )
    assert large < 1.01 * small < 50_000


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_processes_of_their_own(context: str, shared_memory: bool) -> None:
    kwargs = {"num_entities": 100, "max_searches": 1}
    envs = gym.make_vec(
        SYNTHETIC, 2, "async", vector_kwargs={"context": context, "shared_memory": shared_memory}, **kwargs
    )
    first, _ = envs.reset(seed=0)
    alone = gym.make(SYNTHETIC, **kwargs)
    assert first == tuple(alone.reset(seed=seed)[0] for seed in (0, 1))
    actions = envs.action_space.sample()
    assert all("</search>" in action for action in actions)
    observations, *_, infos = envs.step(actions)
    assert infos["searches"].tolist() == [1, 1]
    assert observations[1] == alone.step(actions[1])[0]
    assert first == tuple(alone.reset(seed=seed)[0] for seed in (0, 1)), "what was returned before stays"
    envs.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("env_id", [MUSIQUE, SYNTHETIC])
def test_gymnasiums_checker_passes_within_any_limits(env_id: str, limits: dict[str, Any], musique_home: Any) -> None:
    check_env(gym.make(env_id, render_mode="ansi", **limits).unwrapped)


@pytest.mark.parametrize("limits", [{"max_searches": 0}, {"max_turns": 1}])
def test_where_no_search_can_be_used_the_sampled_turn_answers(limits: dict[str, Any]) -> None:
    env = gym.make(SYNTHETIC, num_entities=100, **limits)
    assert "</answer>" in env.action_space.sample()
    for seed in range(20):
        env.reset(seed=seed)
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated, info["action"]) == (True, False, "answer")


@pytest.mark.parametrize("text", ["", "x", "日本 ‹ é", "\ud800", "x" * ROOM])
def test_texts_in_shared_memory(text: str) -> None:
    memory = create_shared_memory(Prose(), n=3)
    texts = read_from_shared_memory(Prose(), memory, n=3)
    write_to_shared_memory(Prose(), 1, "longer than the others", memory)
    before = copy.deepcopy(texts)
    write_to_shared_memory(Prose(), 1, text, memory)
    assert (before, tuple(texts), texts[1:2]) == (("", "longer than the others", ""), ("", text, ""), (text,))


def test_a_text_without_room_says_so() -> None:
    with pytest.raises(ValueError, match=r"262,145 bytes has no room in the 262,144 .* shared_memory=False"):
        write_to_shared_memory(Prose(), 0, "x" * (ROOM + 1), create_shared_memory(Prose(), n=1))
