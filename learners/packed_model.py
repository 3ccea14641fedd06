"""Hugging Face causal language models over packed batches: token log-probabilities without padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, PreTrainedModel

from learners.types import Batch

ATTENTION = "packed_sdpa"


def _packed_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    lengths: list[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each sequence of a packed row: `[1, heads, T, d]` -> `[1, T, heads, d]`.

    One fused kernel a sequence: no mask is ever made, and no work is done between sequences.
    """
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1])
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _packed_sdpa)
# No mask is made, because the attention function splits the row by itself.
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)


def load_model(folder: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A causal language model from a folder (or the Hub) that attends inside packed sequences."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=ATTENTION).to(device)


def token_logprobs(model: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token in `batch.mask`, in order, `[N]` nats, under `model`.

    Logits are made at those positions alone: most of a trajectory is passages, which the loss never sees.
    """
    device = model.device
    lengths = batch.lengths.tolist()
    # Positions begin at 0 in every trajectory, as they did when its tokens were sampled.
    positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
    ids = torch.tensor(batch.ids, device=device)
    targets = torch.from_numpy(batch.mask.nonzero()[0]).to(device)
    logits = model(
        input_ids=ids[None],
        position_ids=positions[None],
        lengths=lengths,  # transformers hands unknown arguments on to the attention function
        use_cache=False,
        logits_to_keep=targets - 1,  # the logits at a position are of the token after it
    ).logits[0]
    return -F.cross_entropy(logits.float() / temperature, ids[targets], reduction="none")
