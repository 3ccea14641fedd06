"""Environment ids. Importing `research_env` registers them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from research_env.questions.catalogue import DATASETS

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    f"ReSearch-{entry.title}-v0": {"dataset": name} for name, entry in DATASETS.items()
}
"""Id -> keyword arguments of `ReSearchEnv`, all of them JSON. Every registered data set has one."""


def register() -> None:
    """Register every id with gymnasium; a second call changes nothing."""
    for env_id, kwargs in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            # The environment itself refuses a step before `reset`; a wrapper that does it too costs time at every step.
            gym.register(env_id, entry_point="research_env.env:ReSearchEnv", kwargs=kwargs, order_enforce=False)
