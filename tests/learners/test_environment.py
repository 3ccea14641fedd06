"""Environments and their wrappers: whatever is wrong with them is an `EnvironmentFault` of one line."""

from __future__ import annotations

import asyncio
import os
import signal
import string
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from learners.environment import (
    EnvironmentConfig,
    EnvironmentFault,
    WrapperConfig,
    call,
    close,
    make,
    opened,
    reset,
    step,
    stops,
)
from learners.summary import corpus

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


class Odd(Echo):
    """With a space of actions and stop strings as they are given."""

    closed: ClassVar[int] = 0

    def __init__(self, space: Any = None, stop: Any = None) -> None:
        super().__init__()
        self.action_space = self.action_space if space is None else space
        self.metadata = {"stop": stop}

    def close(self) -> None:
        Odd.closed += 1


class Words(gym.Space[str]):
    """A space of some words, of which "text" is none."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        if self.broken:
            raise IndexError("no episode has begun")
        return "look"

    def contains(self, x: Any) -> bool:
        return bool(x == "look") or (self.broken and isinstance(x, str))


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


def odd(**kwargs: Any) -> gym.Env[str, str]:
    gym.register("Odd-v0", entry_point=Odd)
    try:
        return make("Odd-v0", kwargs)
    finally:
        del gym.registry["Odd-v0"]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Text(9, charset="0123456789"),
        gym.spaces.Text(3, min_length=3),
        gym.spaces.Text(2, min_length=0, charset=""),
        gym.spaces.Text(1, charset="é"),
        Words(),
        Words(broken=True),
    ],
    ids=repr,
)
def test_every_space_of_texts_is_one(space: gym.Space[str]) -> None:
    assert odd(space=space).action_space is space


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), gym.spaces.Dict(), gym.spaces.Tuple([]), 3], ids=repr)
def test_other_spaces_are_refused_and_the_environment_is_closed(space: Any) -> None:
    before = Odd.closed
    with pytest.raises(EnvironmentFault, match="not one of texts: its action space is"):
        odd(space=space)
    assert Odd.closed == before + 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ([], ()),
        ("</a>", ("</a>",)),
        (["a", "b"], ("a", "b")),
        (("a",), ("a",)),
        (np.array(["a"]), ("a",)),
        (np.array("a"), ("a",)),
    ],
)
def test_stop_strings(given: Any, expected: tuple[str, ...]) -> None:
    """One text is one stop string, and not one for each of its characters."""
    assert stops(odd(stop=given)) == expected


@pytest.mark.parametrize("given", ["", [""], ["a", ""], 3, [3], [None], {"a": 1, 2: 3}, b"a", iter(["a"])])
def test_other_stop_strings_are_one_line(given: Any) -> None:
    with pytest.raises(EnvironmentFault, match=r'environment Odd-v0: metadata\["stop"\] is .*; give a list of texts'):
        odd(stop=given)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError("gone"), GeneratorExit("gone")], ids=repr)
@pytest.mark.parametrize("method", ["__init__", "reset", "step"])
def test_whatever_an_environment_raises_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, method: str
) -> None:
    """Also what is meant to end a program, a task or a generator."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Echo, method, fail)
    monkeypatch.setattr(Echo, "close", fail)

    def play() -> None:
        env = make(ENV, {})
        try:
            reset(env, 0)
            step(env, "a")
        finally:
            close(env)

    with pytest.raises(EnvironmentFault, match=str(error)):
        play()


def test_an_environment_that_says_nothing_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: Echo, render_mode: str | None = None) -> None:
        self.action_space = self.observation_space = gym.spaces.Text(9)
        self.metadata: Any = None

    monkeypatch.setattr(Echo, "__init__", init)
    assert stops(make(ENV, {})) == ()
    assert corpus(EnvironmentConfig(id=ENV)) is None


def test_what_is_searched_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "metadata", {"corpus": {("a", 1): np.float32(2), "b": {1}}})
    assert corpus(EnvironmentConfig(id=ENV)) == {"['a', 1]": 2.0, "b": [1]}


def test_an_empty_prompt_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "reset", lambda self, **_: ("", {}))
    with pytest.raises(EnvironmentFault, match="reset gave an empty prompt for seed 7"):
        reset(make(ENV, {}), 7)
    monkeypatch.setattr(Echo, "reset", lambda self, **_: ("", {"messages": [{"role": "user", "content": "a"}]}))
    assert reset(make(ENV, {}), 7)[0] == ""


def hang(*_: Any, **__: Any) -> Any:
    """As a client that tries for ever does."""
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            continue


@pytest.mark.parametrize("method", ["__init__", "reset", "step"])
def test_a_call_that_never_returns_is_a_fault_outside_of_rollouts_too(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Before the run and in the warm start there is one environment. It may swallow whatever is raised into it."""
    monkeypatch.setattr(Echo, method, hang)
    section = EnvironmentConfig(id=ENV, step_timeout=0.3)

    def play() -> None:
        with opened(section, {}) as env:
            reset(env, 0)
            step(env, "a")

    with pytest.raises(EnvironmentFault, match=r"has not returned for 0.3 s; research\.step_timeout is the limit"):
        play()


def test_a_close_that_never_returns_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "close", hang)
    with opened(EnvironmentConfig(id=ENV, step_timeout=0.3), {}) as env:
        reset(env, 0)


def test_ctrl_c_ends_the_waiting_for_one_that_swallows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "reset", hang)
    monkeypatch.setattr(Echo, "close", hang)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), opened(EnvironmentConfig(id=ENV), {}) as env:
        reset(env, 0)
    assert time.monotonic() - start < 5


def test_a_call_after_one_that_failed_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same thread, which is not this one; the environment is closed there, too."""
    threads: list[Any] = []
    monkeypatch.setattr(Echo, "close", lambda self: threads.append(threading.current_thread()))
    with opened(EnvironmentConfig(id=ENV), {}) as env:
        with pytest.raises(EnvironmentFault, match="TimeoutError: of its own"):
            call(env, fail_to_connect)
        threads.append(call(env, threading.current_thread))
        reset(env, 0)
        assert step(env, "a")[0] == "a"
    assert threads[0] is threads[1] is not threading.main_thread()


def fail_to_connect() -> None:
    raise TimeoutError("of its own")
