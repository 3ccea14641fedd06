"""The section `engine` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineConfig(BaseModel):
    """Engines: they sample from the policy."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: str = "vllm"
    """`vllm`, `transformers` (where vLLM has no wheel), or `module:Class`."""
    count: int = Field(1, ge=1)
    """Engine actors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where they run."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations."""
    threads: int = Field(2, ge=1)
    """CPU threads of each engine (CPU only)."""
    max_length: int = Field(1024, ge=16)
    """Tokens an episode may hold, prompt included."""
    max_sequences: int = Field(128, ge=1)
    """Episodes generated at once by one engine; more wait."""
    max_batch_tokens: int = Field(2048, ge=16)
    """Tokens one forward pass may hold."""
    cache_gib: float = Field(1.0, gt=0)
    """Key-value cache, GiB (CPU only)."""
    gpu_memory_share: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory (GPU only)."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one engine."""
