"""Environments of texts, known by gymnasium's interface alone, and the section of the configuration that names one."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, Field, model_validator

from learners import border, names
from learners.errors import Fault
from learners.threads import Aside, NotReturned


class EnvironmentFault(Fault):
    """The environment cannot be made, is not one of texts, or failed; the message says why, in one line."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class WrapperConfig(_Section):
    """A wrapper of the environment: `"module:Class"`, or `{name = "module:Class", kwargs = {…}}`."""

    name: str
    """`module:Class`, called with the environment and `kwargs`."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments, JSON."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Stage(_Section):
    """A stage of a curriculum."""

    kwargs: dict[str, Any]
    """Changes to the training environment's keyword arguments while the stage lasts."""
    until: float
    """The stage ends with the first step whose mean reward reaches this."""


class EnvironmentConfig(_Section):
    """An environment, with what differs between training and evaluation."""

    id: str = ""
    """Gymnasium id, `module:Id-v0` where importing the module registers it."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of `gym.make`, JSON."""
    eval_kwargs: dict[str, Any] = {}
    """Changes to them for evaluation."""
    blind_kwargs: dict[str, Any] = {}
    """Further changes, for an evaluation without retrieval; empty leaves that evaluation out."""
    stages: list[Stage] = []
    """Easier stages of training, in order; after the last one, `kwargs` apply unchanged."""
    wrappers: list[WrapperConfig] = []
    """Wrappers, the innermost first: `module:Class` each, or with arguments `{"name": "module:Class", "kwargs": {…}}`.
    They go around whatever environment `--env` names."""
    metrics: str = "learners.metrics:by_hops"
    """`module:function` that turns the episodes of a rollout into metrics, each with a value for every group."""
    step_timeout: float = Field(600.0, gt=0)
    """Seconds that one call of the environment may take in a rollout. Then the episode is given up and tried again; its
    thread is left behind. Leave time for an index that the first search builds."""


def same_environment(one: str, other: str) -> bool:
    """Whether two ids name the same environment: the module that registers it, and the version, may be left out."""
    (module, _, name), (module2, _, name2) = one.rpartition(":"), other.rpartition(":")
    (base, version), (base2, version2) = (
        re.sub(r"-v(\d+)$", ":\\1", each).partition(":")[::2] for each in (name, name2)
    )
    return base == base2 != "" and all(not a or not b or a == b for a, b in ((module, module2), (version, version2)))


@contextmanager
def faults() -> Iterator[None]:
    """Turn whatever an environment raises into `EnvironmentFault`: an outage there is not a bug here."""
    try:
        yield
    except (EnvironmentFault, KeyboardInterrupt):
        raise
    except NotReturned as error:
        raise EnvironmentFault(
            f"the environment has not returned for {error.args[0]:g} s; research.step_timeout is the limit"
        ) from error
    except BaseException as error:  # also what asyncio and `sys.exit` raise: it would end the run, or a task of ours
        raise EnvironmentFault(border.text(names.one_line(error)) + where(error)) from error


def where(error: BaseException) -> str:
    """File and line of what is most likely a mistake in somebody's code; nothing for an outage, which names itself."""
    if type(error).__module__ != "builtins" or isinstance(error, OSError):
        return ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({last.filename}, line {last.lineno})"


def make(env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[WrapperConfig] = ()) -> gym.Env[str, str]:
    """Make an environment of texts.

    Args:
        env_id: Gymnasium id, `module:Id-v0` where importing the module registers it.
        kwargs: Keyword arguments of `gym.make`.
        wrappers: Put around the environment in this order.

    Raises:
        EnvironmentFault: the id is unknown, the arguments do not fit, its spaces are not of `str`, or a wrapper cannot
            be made.
    """
    # Gymnasium's checker would run in every new environment, and costs more than a step of ours.
    try:
        env: gym.Env[str, str] = gym.make(env_id, disable_env_checker=True, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        hint = ""
        if isinstance(error, gym.error.UnregisteredEnv) and ":" not in env_id:
            hint = " Where a module registers it, write module:Id-v0."
        # The message leaves out the arguments, which may hold a password; the error names the one that is wrong.
        raise EnvironmentFault(f"environment {env_id!r}: {names.flat(error)}{hint}") from error
    try:
        for wrapper in wrappers:
            env = _wrap(env, wrapper)
        for what in ("action", "observation"):
            space = getattr(env, f"{what}_space", None)
            if not _holds_texts(space):
                raise EnvironmentFault(f"environment {env_id!r} is not one of texts: its {what} space is {space}")
        stops(env)
    except EnvironmentFault:
        close(env)
        raise
    return env


@contextmanager
def opened(section: EnvironmentConfig, kwargs: Mapping[str, Any]) -> Iterator[gym.Env[str, str]]:
    """An environment for as long as the block lasts, each of whose calls may take `step_timeout`; raises as `make`."""
    thread = Aside(section.step_timeout)
    made: list[gym.Env[str, str]] = []
    try:
        with faults():
            thread.run(lambda: made.append(make(section.id, kwargs, section.wrappers)))
        yield _Apart(made[0], thread)
    finally:
        thread.end(lambda: list(map(close, made)))


class _Apart(gym.Wrapper[str, str, str, str]):
    """An environment whose calls run on a thread of their own, where they can be left."""

    def __init__(self, env: gym.Env[str, str], thread: Aside) -> None:
        super().__init__(env)
        self.call = thread.run

    def reset(self, **kwargs: Any) -> Any:
        return self.call(lambda: self.env.reset(**kwargs))

    def step(self, action: str) -> Any:
        return self.call(lambda: self.env.step(action))


def call(env: gym.Env[str, str], work: Callable[[], Any]) -> Any:
    """Something else that is asked of an environment, on its own thread where it has one.

    Raises:
        EnvironmentFault: it failed.
    """
    with faults():
        return env.call(work) if isinstance(env, _Apart) else work()


def _holds_texts(space: Any) -> bool:
    """Whether a space is one of texts, of whatever characters and lengths."""
    if isinstance(space, gym.spaces.Text):
        return True
    # A space of somebody's own may be unable to draw a sample before an episode has begun.
    with suppress(Exception):
        if space.contains("text"):
            return True
        return isinstance(space.sample(), str)
    return False


def _wrap(env: gym.Env[str, str], wrapper: WrapperConfig) -> gym.Env[str, str]:
    takes = ("env", *(f"{name}=" for name in wrapper.kwargs))
    try:
        target = names.check({}, "wrapper", wrapper.name, takes=takes)
    except ValueError as error:
        raise EnvironmentFault(str(error)) from error
    try:
        wrapped = target(env, **wrapper.kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise EnvironmentFault(f"wrapper {wrapper.name}: {names.one_line(error)}") from error
    if not isinstance(wrapped, gym.Env):
        raise EnvironmentFault(f"wrapper {wrapper.name} makes {type(wrapped).__name__}, which is not an environment")
    return wrapped


def metadata(env: gym.Env[str, str]) -> Mapping[Any, Any]:
    """What an environment says about itself; empty where that is no mapping. See `learners.contract.Metadata`."""
    found: Any = env.unwrapped.metadata
    return found if isinstance(found, Mapping) else {}


def stops(env: gym.Env[str, str]) -> tuple[str, ...]:
    """Strings after which a turn is over, from the environment's metadata key `stop`; empty where it has none.

    Raises:
        EnvironmentFault: the key holds something else.
    """
    found = metadata(env).get("stop")
    if found is None:
        return ()
    if hasattr(found, "tolist"):
        found = found.tolist()
    # An iterator is used up by whoever asks first.
    several = isinstance(found, Iterable) and not isinstance(found, Iterator)
    each: list[Any] = [found] if isinstance(found, str) else list(found) if several else [None]
    if not all(isinstance(one, str) and one for one in each):
        raise EnvironmentFault(
            f'{name(env)}: metadata["stop"] is {border.shown(found)}; give a list of texts, none of them empty'
        )
    return tuple(border.text(one) for one in each)


def reset(env: gym.Env[str, str], seed: int) -> tuple[str, dict[str, Any]]:
    """Begin an episode: the prompt and `info`, both as the learners keep them; see `learners.border`.

    Args:
        env: Any environment of texts.
        seed: Of the episode.

    Raises:
        EnvironmentFault: the environment failed, or gave something else, or a prompt that says nothing.
    """
    with faults():
        prompt, info = _checked(env, "reset", *env.reset(seed=seed))
        if not prompt and not info.get("messages"):
            raise EnvironmentFault(f"{name(env)}: reset gave an empty prompt for seed {seed}")
        return prompt, info


def step(env: gym.Env[str, str], action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
    """Take a turn: what `env.step` returns, text and `info` as the learners keep them; the reward as it came.

    Args:
        env: Of a running episode.
        action: Text of the turn.

    Raises:
        EnvironmentFault: the environment failed, or gave something else.
    """
    with faults():
        observation, reward, terminated, truncated, info = env.step(action)
        said, kept = _checked(env, "step", observation, info)
        return said, reward, bool(terminated), bool(truncated), kept


def reward(env: gym.Env[str, str], value: Any, where: str) -> float:
    """The reward of a step as a number.

    Args:
        env: Gave it.
        value: What it gave.
        where: Which step it was, for the message.

    Raises:
        EnvironmentFault: it is no number, or not a finite one: training on it would destroy the policy.
    """
    try:
        return border.number(value)
    except ValueError as error:
        raise EnvironmentFault(f"{name(env)}: the reward of {where} is wrong: {error}") from None


def _checked(env: gym.Env[str, str], method: str, said: Any, info: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(said, str):
        raise EnvironmentFault(f"{name(env)}: {method} gave the observation {border.shown(said)}, which is not a text")
    if not isinstance(info, Mapping):
        raise EnvironmentFault(f"{name(env)}: {method} gave the info {border.shown(info)}, which is not a dictionary")
    return border.text(said), border.plain(info)


def name(env: gym.Env[str, str]) -> str:
    """An environment in a message: its id, or its class where it was made without one."""
    return f"environment {env.spec.id if env.spec else type(env.unwrapped).__name__}"


def close(env: gym.Env[str, str]) -> None:
    """Close an environment. One that has failed may fail to close, too."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException:  # `sys.exit` would end the program without a word
        return
