"""The random agent: well-formed turns that search for names it has read, or answer with one. A lower bound."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class RandomAgent:
    """Plays what the action space samples. It needs no model, and works on any environment."""

    def __init__(self, env: gym.Env[str, str]) -> None:
        self._space = env.action_space

    def reset(self, seed: int | None = None) -> None:
        """See `Agent.reset`. Without a seed the stream of turns goes on."""
        # The space draws the turns, so its generator is the only one to seed.
        if seed is not None:
            self._space.seed(seed)

    def act(self, observation: str, info: dict[str, Any]) -> str:
        """See `Agent.act`."""
        return self._space.sample()
