"""The oracle: a script that knows the question's decomposition. It is an upper bound, and tests the harness.

Its exact match is 1.0 by construction. What it measures is retrieval: `info["evidence"]` tells for which hops a search
with the perfect query brings the gold passage.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from research_env.env import ReSearchEnv
from research_env.errors import ConfigurationError


class OracleAgent:
    """Searches for each hop in order, in the data set's own words, then answers with the first golden answer.

    The gold answers come from the data set, since `info` has them only when the episode has ended. Where the
    environment's limits leave too little room for all hops, the last ones are not searched.

    Raises:
        ConfigurationError: the environment is not one of this project's, so its gold answers cannot be read.
    """

    def __init__(self, env: gym.Env[str, str]) -> None:
        if not isinstance(env.unwrapped, ReSearchEnv):
            raise ConfigurationError(f"the oracle cannot play {env.unwrapped}: it needs the gold of a ReSearchEnv")
        self._env = env.unwrapped

    def reset(self, seed: int | None = None) -> None:
        """See `Agent.reset`. Nothing is kept from turn to turn: `info` tells how far the episode is."""

    def act(self, observation: str, info: dict[str, Any]) -> str:
        """See `Agent.act`."""
        question = self._env.find_question(info["question_id"])
        # Some data sets have no decompositions: then the question itself is the one query.
        queries = [hop.question for hop in question.decomposition] or [question.text]
        # The last turn must answer, so it cannot search.
        room = min(self._env.settings.max_searches, self._env.settings.max_turns - 1)
        done = info["searches"]
        if done < min(len(queries), room):
            return self._env.protocol.search_turn(f"Step {done + 1} of {len(queries)}.", queries[done])
        return self._env.protocol.answer_turn("All steps are done.", question.answers[0])
