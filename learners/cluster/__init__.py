"""Where the engines and the trainers of a run live: as Ray actors, or in this process.

This file loads without Ray, torch, transformers and vLLM; `open_cluster` imports what the chosen cluster needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from learners import names
from learners.types import Batch, Play, Trajectory

if TYPE_CHECKING:
    from learners.config import Config
    from learners.rollout import Rollout


class Cluster(Protocol):
    """Engines and trainers as plain functions. Use it as a context manager: leaving it leaves nothing running.

    Every method raises `ActorFault` where an engine or a trainer died, or raised what is no other `Fault`.
    """

    def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        """Play episodes, those of one group with one engine, whose cache has their prompt.

        Raises:
            EnvironmentFault: more than half of the episodes of an engine had to be dropped.
        """
        ...

    def score(self, trajectories: Sequence[Trajectory], wanted: frozenset[str]) -> dict[str, list[np.ndarray]]:
        """Log-probabilities of trajectories, before anything is learned from them.

        Args:
            trajectories: Of any order and length.
            wanted: `old` (the policy as it is now), `reference`, or both.

        Returns:
            Name -> `[L]` float32 nats for each trajectory, 0.0 where the mask is False.
        """
        ...

    def step(
        self, batches: Sequence[Batch], learning_rate: float, coefficients: Mapping[str, float]
    ) -> dict[str, float]:
        """One optimiser step over all trainers; see `Trainer.step`. Metrics are those of the whole update."""
        ...

    def publish(self, version: int) -> None:
        """Send the trainers' weights to every engine, as this version."""
        ...

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """See `Trainer.save`."""
        ...

    def load(self, folder: Path) -> None:
        """See `Trainer.load`."""
        ...

    def close(self) -> None:
        """Stop everything; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


CLUSTERS: dict[str, str] = {
    "ray": "learners.cluster.driver:RayCluster",
    "local": "learners.cluster.local:LocalCluster",
}
"""Cluster name -> `module:Class`, called with `(config, model, trainers, reference)`."""


def open_cluster(config: Config, model: str, trainers: bool = True, reference: str | None = None) -> Cluster:
    """Start the cluster of a run.

    Args:
        config: Of the run; `config.cluster` says which.
        model: Folder or Hub id of the policy that engines and trainers start from.
        trainers: False starts engines alone, for an evaluation: only `collect` and `close` work then.
        reference: Folder or Hub id of the reference policy; None takes `model`.
    """
    cluster: Cluster = names.load(CLUSTERS, "--cluster", config.cluster)(config, model, trainers, reference)
    return cluster
