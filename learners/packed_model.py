"""Hugging Face causal language models over packed batches: token log-probabilities without padding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from learners.types import Batch

ATTENTION = "packed"
CHUNK = 1024
"""Tokens whose logits are float32 at one time."""


_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_router_logits", "logits_to_keep"}
)
"""What transformers hands on to an attention function without a meaning for it."""
_KNOWN = {"softcap": "a soft cap of its scores", "s_aux": "attention sinks", "position_bias": "a bias of positions"}


def unserved(module: torch.nn.Module, lengths: list[int], kwargs: Mapping[str, Any]) -> set[str]:
    """What a model asks of its attention that is more than plain causal attention over sequences of these lengths.

    Whatever is not known is not served: ignored, it would give other log-probabilities without a word.
    """
    found = set()
    for name, value in kwargs.items():
        if value is None or name in _HARMLESS:
            continue
        if name == "sliding_window":
            # A token sees the window's size of tokens, itself among them.
            found |= {f"a window of {value} tokens"} if value < max(lengths) else set()
        elif name != "is_causal":
            found.add(_KNOWN.get(name, name))
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        found.add("attention to later tokens")
    return found


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

    Raises:
        ValueError: the model asks for more than that; `packed_check` finds it out before a run starts.
    """
    if needs := unserved(module, lengths, kwargs):
        raise ValueError(f"packed attention does not serve {', '.join(sorted(needs))}")
    parts = [
        F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        ).transpose(1, 2)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    # Joined when the heads stand last: the one copy is then laid out as every model goes on with it.
    return torch.cat(parts, 1), None


AttentionInterface.register(ATTENTION, _packed_sdpa)
# No mask is made, because the attention function splits the row by itself.
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)


def load_model(folder: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A causal language model from a folder (or the Hub) that attends inside packed sequences."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=ATTENTION)
    # Dropout or noise in a router would score another policy than the one that sampled.
    return model.to(device).eval()


def layers_of(model: PreTrainedModel) -> list[Any]:
    """The layers of a model, which transformers marks as what can be computed again."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute(model: PreTrainedModel) -> None:
    """Let each layer keep its input alone, and compute the rest again in the backward pass."""
    for layer in layers_of(model):
        # transformers' own switch works in training mode only, and with it dropout.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


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
    if len(logits) <= CHUNK:
        return _chosen(logits, ids[targets], temperature)
    # Float32 logits of all tokens are the largest tensors of a step. A chunk's are computed again for its gradient.
    chunks = zip(logits.split(CHUNK), ids[targets].split(CHUNK), strict=True)
    return torch.cat([checkpoint(_chosen, *chunk, temperature, use_reentrant=False) for chunk in chunks])


def _chosen(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    return -F.cross_entropy(logits.float() / temperature, ids, reduction="none")
