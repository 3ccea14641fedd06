"""What an agent is, and how it plays an episode."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym

from agents import AGENTS
from research_env import names


class Agent(Protocol):
    """Plays episodes, one at a time, of the environment that it was made with."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: forget the one before. With a seed, what follows depends on it and on the episode alone."""
        ...

    def act(self, observation: str, info: dict[str, Any]) -> str:
        """One turn.

        Args:
            observation: The newest text of the environment and nothing older: the prompt, a search result, or one
                corrective line.
            info: The environment's `info` with it. Golden answers are in it only when the episode has ended.
        """
        ...


def make_agent(name: str, env: gym.Env[str, str]) -> Agent:
    """The agent of this name, or of a `module:Class` of your own, for an environment.

    Raises:
        ConfigurationError: there is no such agent, or it cannot play this environment.
    """
    agent: Agent = names.make(AGENTS, "agent", name, ("reset", "act"), env)
    return agent


def play_episode(
    env: gym.Env[str, str], agent: Agent, seed: int | None = None, question_id: str | None = None
) -> dict[str, Any]:
    """Play one episode to its end.

    Args:
        env: The environment the agent was made with.
        agent: Reset here with the same seed.
        seed: Of the environment and of the agent; None goes on to the next question.
        question_id: The question to play, whatever the seed.

    Returns:
        The last `info`, with the episode's `reward` and whether it was `truncated` added.

    Raises:
        ResearchError: whatever the environment raises; the episode is lost.
    """
    options = None if question_id is None else {"question_id": question_id}
    observation, info = env.reset(seed=seed, options=options)
    agent.reset(seed)
    total = 0.0
    while True:
        observation, reward, terminated, truncated, info = env.step(agent.act(observation, info))
        total += float(reward)  # the environment rewards the end alone, a wrapper may reward every turn
        if terminated or truncated:
            return {**info, "reward": total, "truncated": truncated}
