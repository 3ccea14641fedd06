"""The section `trainer` of the configuration. It stands beside `trainer.py`, which imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainerConfig(BaseModel):
    """Trainers: they hold the policy that learns, sharded over them (FSDP2)."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    count: int = Field(1, ge=1)
    """Trainer actors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where they run."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations."""
    threads: int = Field(2, ge=1)
    """CPU threads of each trainer (CPU only)."""
    max_batch_tokens: int = Field(8192, ge=16)
    """Tokens of one forward and backward pass."""
    recompute: bool = False
    """Compute activations again in the backward pass: a third more work, and a small part of the memory."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate of AdamW."""
    final_learning_rate: float | None = Field(None, gt=0)
    """Learning rate at the last step, reached linearly; None keeps the peak."""
    rate_warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
