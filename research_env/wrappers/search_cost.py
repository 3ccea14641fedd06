"""Searching costs: a policy that finds the answer with fewer searches earns more."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class SearchCost(gym.Wrapper[str, str, str, str]):
    """Subtracts `cost` from the reward for each search, at the turn that made it.

    It works on any environment of texts that reports `searches`, the number of searches so far, in its `info`. The cost
    is in `info["reward_parts"]["turn"]`, apart from what the answer earned.
    """

    def __init__(self, env: gym.Env[str, str], cost: float) -> None:
        super().__init__(env)
        self._cost = cost
        self._before = 0

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        text, info = self.env.reset(**kwargs)
        self._before = info.get("searches", 0)
        return text, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        text, reward, terminated, truncated, info = self.env.step(action)
        searches = info.get("searches", 0)
        paid = self._cost * (searches - self._before)
        self._before = searches
        # A copy: the environment may keep the dictionary that it handed out.
        parts = dict(info.get("reward_parts") or {"turn": 0.0, "outcome": float(reward)})
        parts["turn"] -= paid
        return text, float(reward) - paid, terminated, truncated, {**info, "reward_parts": parts}
