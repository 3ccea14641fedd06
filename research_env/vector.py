"""Many episodes in step: one call of each tool for all of them.

envs = BatchedVectorEnv([lambda: gym.make("ReSearch-MuSiQue-v0") for _ in range(64)])
observations, infos = envs.reset(seed=0)
observations, rewards, terminations, truncations, infos = envs.step(turns)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from research_env.env import ReSearchEnv
from research_env.errors import ConfigurationError
from research_env.tools.base import run


class BatchedVectorEnv(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` over environments of this package, with the same arguments, results and autoreset.

    The turns of all environments are parsed first; then the calls of all of them run together, so a server gets one
    batch of queries and not one query after the other; then every environment takes its step. If a call fails, the
    step raises before any environment has taken it; when the same step is tried again, only what failed runs again.
    """

    def __init__(self, env_fns: Iterable[Callable[[], gym.Env[str, str]]], **kwargs: Any) -> None:
        """Make the environments.

        Args:
            env_fns: One function for each environment.
            **kwargs: See `gymnasium.vector.SyncVectorEnv`.

        Raises:
            ConfigurationError: an environment is not of this package, or they differ in the corpus, its options or the
                tools.
        """
        if not (functions := list(env_fns)):
            raise ConfigurationError("env_fns is empty: give one function for each environment")
        super().__init__(functions, **kwargs)
        self._inner = [_inner(env) for env in self.envs]
        # Gymnasium samples from copies of the first one's space, which know nothing of the episodes.
        self.action_space = gym.spaces.Tuple([inner.action_space for inner in self._inner])
        first = self._inner[0].settings
        # `model_extra` has the options of the data set, e.g. which world the encyclopedia is of.
        for name in ("dataset", "model_extra", "corpus", "retrieval", "top_k", "tools"):
            for inner in self._inner:
                if getattr(inner.settings, name) != getattr(first, name):
                    raise ConfigurationError(
                        f"{name}={getattr(inner.settings, name)!r} and {getattr(first, name)!r}: the environments of "
                        "one BatchedVectorEnv must search the same corpus with the same tools"
                    )

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:  # type: ignore[override]
        """See `gymnasium.vector.SyncVectorEnv.step`.

        Raises:
            RetrievalError: a search failed; no environment has taken the step.
        """
        # A text would be taken for as many turns of one character.
        if actions is None or isinstance(actions, str | bytes):
            raise TypeError(f"give a sequence of {self.num_envs} actions, one for each environment; got {actions!r}")
        texts = list(iterate(self.action_space, actions))
        if len(texts) != self.num_envs:
            raise ValueError(f"{self.num_envs} actions are needed, one for each environment; got {len(texts)}")
        # An environment that is about to be reset in this step has no turn to take.
        resetting = self._autoreset_envs if self.autoreset_mode == AutoresetMode.NEXT_STEP else [False] * len(texts)
        moves = {
            at: self._inner[at].act(text)
            for at, text in enumerate(texts)
            # One that is prepared is left from a step that another environment's outage has stopped.
            if not resetting[at] and not self._inner[at].prepared(text)
        }
        # The settings agree (see `__init__`), so the tools of the first environment serve all of them.
        results = run(self._inner[0].tools, [call for move in moves.values() for call in move.calls])
        outage: Exception | None = None
        place = 0
        for at, move in moves.items():
            own = results[place : place + len(move.calls)]
            place += len(move.calls)
            errors = [result.error for result in own if result.error is not None]
            if errors:
                outage = outage or errors[0]
            else:
                self._inner[at].prepare(texts[at], move, own)
        if outage is not None:
            raise outage
        # This calls `step` of each environment, which finds the results that `prepare` has left with it.
        return super().step(actions)


def _inner(env: gym.Env[str, str]) -> ReSearchEnv:
    inner = env
    while isinstance(inner, gym.Wrapper):
        # Its environment would be stepped with another turn than the one that was parsed here.
        if isinstance(inner, gym.ActionWrapper):
            raise ConfigurationError(f"{type(inner).__name__} changes actions: use gymnasium's SyncVectorEnv")
        inner = inner.env
    if not isinstance(inner, ReSearchEnv):
        raise ConfigurationError(f"{inner} is not a ReSearchEnv: use gymnasium's SyncVectorEnv")
    return inner
