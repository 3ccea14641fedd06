"""The sections `tiny` and `warmup` of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

TOKENIZER_EPISODES = 2_000
"""Random episodes that a tiny policy's tokenizer is learned from."""


class TinyConfig(BaseModel):
    """Shape of the tiny policy."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    # The name of a cached policy is a hash of these fields and of WarmupConfig's. A new field makes all invalid.
    hidden: int = Field(256, ge=32)
    """Width of the residual stream."""
    layers: int = Field(4, ge=2)
    """Transformer layers, at least 2."""
    heads: int = Field(8, ge=2, multiple_of=2)
    """Attention heads; `hidden / heads` must be a multiple of 32 for the engine's CPU kernels."""
    feed_forward: int = Field(512, ge=1)
    """Width of the feed-forward layers."""
    vocabulary: int = Field(3072, ge=257)
    """Tokens of the tokenizer at most, learned from the environment's own texts."""


class WarmupConfig(BaseModel):
    """Warm start of the tiny policy on transcripts of a random agent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    steps: int = Field(400, ge=1)
    """Optimiser steps."""
    episodes_per_step: int = Field(24, ge=1)
    """Random episodes in each step; every one is used once."""
    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate."""

    def episodes(self) -> int:
        """How many random episodes are played: the tokenizer learns from the first of them."""
        return max(TOKENIZER_EPISODES, self.steps * self.episodes_per_step)
