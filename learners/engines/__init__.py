"""Engines sample completions from the policy, token ids in and token ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from learners.types import Completion, Sampling


class Engine(Protocol):
    """Samples completions. Many calls of `generate` at once are expected: the engine batches across them."""

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        """Sample what follows `ids`, `[L]`."""
        ...

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Take new weights, in memory, under their Hugging Face names. Call it while nothing is being generated."""
        ...

    async def close(self) -> None:
        """Stop, and leave no process behind."""
        ...


ENGINES: dict[str, str] = {
    "vllm": "learners.engines.vllm:VllmEngine",
    "transformers": "learners.engines.transformers:TransformersEngine",
}
"""Engine name -> `module:Class`, called with `(EngineConfig, model folder, seed=…)`."""
