"""Environments of texts, known by gymnasium's interface alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym


class EnvironmentFault(Exception):
    """The environment cannot be made, does not deal in texts, or failed; the message says why, in one line."""


@contextmanager
def faults() -> Iterator[None]:
    """Turn whatever an environment raises into `EnvironmentFault`: an outage there is not a bug here."""
    try:
        yield
    except Exception as error:
        raise EnvironmentFault(f"{type(error).__name__}: {error}") from error


def make(env_id: str, kwargs: dict[str, Any]) -> gym.Env[str, str]:
    """Make an environment of texts.

    Raises:
        EnvironmentFault: the id is unknown, the arguments do not fit, or its spaces are not of `str`.
    """
    # Every environment of a process is a fresh one; the checkers cost more than a step of ours.
    try:
        env = gym.make(env_id, disable_env_checker=True, **kwargs)
    except Exception as error:
        hint = ""
        if isinstance(error, gym.error.UnregisteredEnv) and ":" not in env_id:
            hint = " Where a module registers it, write module:Id-v0."
        # Without the arguments, among which somebody may have put a password; the error names the one that is wrong.
        raise EnvironmentFault(f"environment {env_id!r}: {error}{hint}") from error
    for what, space in (("action", env.action_space), ("observation", env.observation_space)):
        if not space.contains("text"):
            raise EnvironmentFault(f"environment {env_id!r} is not one of texts: its {what} space is {space}")
    return env


def stops(env: gym.Env[str, str]) -> tuple[str, ...]:
    """Strings after which a turn is over, from the environment's metadata key `stop`; empty where it has none."""
    return tuple(env.unwrapped.metadata.get("stop", ()))
