"""Environments and their wrappers: whatever is wrong with them is an `EnvironmentFault` of one line."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest

from learners.environment import EnvironmentFault, WrapperConfig, make

ENV = "Echo-v0"


class Echo(gym.Env[str, str]):
    """Says what it was told, for a reward of 1."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, loud: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(99, charset=string.printable)
        if loud:
            raise OSError("no\n  such thing")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "say something", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return action, 1.0, False, False, {}


class Scaled(gym.RewardWrapper[str, str]):
    """Reward times `by`, plus `plus`."""

    def __init__(self, env: gym.Env[str, str], by: float = 2.0, plus: float = 0.0) -> None:
        super().__init__(env)
        if by < 0:
            raise ValueError(f"by = {by}:\ngive a positive number")
        self.by, self.plus = by, plus

    def reward(self, reward: Any) -> float:
        return float(reward) * self.by + self.plus


class Numbers(gym.ObservationWrapper[int, str, str]):
    """A wrapper after which the actions are not texts any more."""

    def __init__(self, env: gym.Env[str, str]) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Discrete(3)

    def observation(self, observation: str) -> int:
        return len(observation)


def nothing(env: gym.Env[str, str]) -> int:
    """A function in the place of a wrapper, and a wrong one."""
    return 3


@pytest.fixture(autouse=True)
def echo() -> Iterator[None]:
    gym.register(ENV, entry_point=Echo)
    yield
    del gym.registry[ENV]


def wrapper(name: str, **kwargs: Any) -> WrapperConfig:
    return WrapperConfig(name=f"{__name__}:{name}", kwargs=kwargs)


def reward(*wrappers: WrapperConfig) -> float:
    env = make(ENV, {}, wrappers)
    env.reset(seed=0)
    return float(env.step("a")[1])


def test_wrappers_go_around_the_environment_in_order() -> None:
    add, scale = wrapper("Scaled", plus=1), wrapper("Scaled", by=10)
    assert reward() == 1
    assert reward(add, scale) == (1 * 2 + 1) * 10
    assert reward(scale, add) == 1 * 10 * 2 + 1


def test_a_wrapper_is_a_name_or_a_table() -> None:
    assert WrapperConfig.model_validate("a:B") == WrapperConfig(name="a:B")
    assert WrapperConfig.model_validate({"name": "a:B", "kwargs": {"c": 1}}).kwargs == {"c": 1}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (WrapperConfig(name="Scaled"), ["wrapper Scaled is unknown", "module:Name"]),
        (WrapperConfig(name="no_such_module:X"), ["no_such_module:X cannot be loaded"]),
        (wrapper("Absent"), ["Absent"]),
        (wrapper("Scaled", buy=2), ["Scaled cannot be called with (env, buy=)", "buy"]),
        (wrapper("Scaled", by=-1), ["Scaled", "ValueError: by = -1: give a positive number"]),
        (wrapper("ENV"), ["str, which cannot be called"]),
        (wrapper("nothing"), ["makes int, which is not an environment"]),
        (wrapper("Numbers"), ["not one of texts", "Discrete"]),
    ],
)
def test_a_wrong_wrapper_is_one_line(given: WrapperConfig, named: list[str]) -> None:
    with pytest.raises(EnvironmentFault) as raised:
        make(ENV, {}, [given])
    message = str(raised.value)
    assert "\n" not in message
    assert [each for each in named if each not in message] == [], message


def test_a_wrong_environment_is_one_line() -> None:
    for env_id, kwargs in ((ENV, {"loud": True}), (ENV, {"quiet": True}), ("NoSuch-v0", {}), ("CartPole-v1", {})):
        with pytest.raises(EnvironmentFault, match=env_id) as raised:
            make(env_id, kwargs)
        assert "\n" not in str(raised.value)
