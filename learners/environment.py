"""Environments of texts, known by gymnasium's interface alone, and the section of the configuration that names one."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, model_validator

from learners import names
from learners.errors import Fault


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
    """Wrappers, the innermost first: `module:Class` each, or with arguments `{name = "module:Class", kwargs = {…}}`.
    They go around whatever environment `--env` names."""
    metrics: str = "learners.metrics:by_hops"
    """`module:function` that turns the episodes of a rollout into metrics, each with a value for every group."""


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
    except Exception as error:
        raise EnvironmentFault(names.one_line(error) + _where(error)) from error


def _where(error: Exception) -> str:
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
    except Exception as error:
        hint = ""
        if isinstance(error, gym.error.UnregisteredEnv) and ":" not in env_id:
            hint = " Where a module registers it, write module:Id-v0."
        # The message leaves out the arguments, which may hold a password; the error names the one that is wrong.
        raise EnvironmentFault(f"environment {env_id!r}: {names.flat(error)}{hint}") from error
    for wrapper in wrappers:
        env = _wrap(env, wrapper)
    for what, space in (("action", env.action_space), ("observation", env.observation_space)):
        if not space.contains("text"):
            raise EnvironmentFault(f"environment {env_id!r} is not one of texts: its {what} space is {space}")
    return env


def _wrap(env: gym.Env[str, str], wrapper: WrapperConfig) -> gym.Env[str, str]:
    takes = ("env", *(f"{name}=" for name in wrapper.kwargs))
    try:
        target = names.check({}, "wrapper", wrapper.name, takes=takes)
    except ValueError as error:
        raise EnvironmentFault(str(error)) from error
    try:
        wrapped = target(env, **wrapper.kwargs)
    except Exception as error:
        raise EnvironmentFault(f"wrapper {wrapper.name}: {names.one_line(error)}") from error
    if not isinstance(wrapped, gym.Env):
        raise EnvironmentFault(f"wrapper {wrapper.name} makes {type(wrapped).__name__}, which is not an environment")
    return wrapped


def stops(env: gym.Env[str, str]) -> tuple[str, ...]:
    """Strings after which a turn is over, from the environment's metadata key `stop`; empty where it has none."""
    return tuple(env.unwrapped.metadata.get("stop", ()))
