"""How much memory a run needs, by arithmetic: from the policy's configuration and the settings, before it starts.

Weights and states are counted. Activations are measured on a model without memory (PyTorch's meta device): what
autograd would keep for the backward pass. Temporary tensors of single operations and fragmentation are in `SPARE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from learners.config import Config
from learners.packed_model import CHUNK, layers_of

SPARE = 0.1
"""Share of a memory that an estimate leaves free."""
GIB = 2**30
_SIZES = "packed_sizes"
_TOKENS = 256
"""Tokens that are measured; what is kept grows in proportion to them."""

Parts = Mapping[str, float]
"""What needs memory -> bytes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What autograd keeps for one token, in bytes."""

    layers: float
    """In all layers together."""
    layer: float
    """In the layer that keeps most."""
    around: float
    """Outside layers and head."""


def trainer(config: Config, model: Any, reference: bool) -> Parts:
    """Memory of one rank, when it is fullest.

    Args:
        config: Of the run.
        model: Made by `packed_check.build`.
        reference: Whether it holds a reference model as well.
    """
    settings, text = config.trainer, model.config.get_text_config()
    size, dtype, ranks = sum(p.numel() for p in model.parameters()), getattr(torch, settings.dtype), settings.count
    # No episode is longer than `engine.max_length`, but one alone may fill more than a batch.
    tokens = max(settings.max_batch_tokens, config.engine.max_length)
    kept = measured(model, dtype)
    held = (
        text.num_hidden_layers * text.hidden_size * dtype.itemsize + kept.layer if settings.recompute else kept.layers
    )
    chunk = min(CHUNK, tokens)
    parts = {
        "weights": 4.0 * size / ranks,
        "gradients": 4.0 * size / ranks,
        "AdamW": 8.0 * size / ranks,
        "reference": dtype.itemsize * size / ranks if reference else 0.0,
        "cast or gathered weights": _whole(model, size, dtype, ranks),
        "activations": tokens * (held + kept.around + kept.layer),  # once more for the gradients of one layer
        # The logits, the gradients of the chunks and of the whole; and of one chunk five float32 copies.
        "logits": text.vocab_size * (3.0 * tokens * dtype.itemsize + 20.0 * chunk),
    }
    return {name: part for name, part in parts.items() if part}


def _whole(model: Any, size: int, dtype: torch.dtype, ranks: int) -> float:
    """Weights that are there beside the rank's own part."""
    if ranks == 1:
        return 0.0 if dtype == torch.float32 else dtype.itemsize * size
    layer = max(sum(p.numel() for p in layer.parameters()) for layer in layers_of(model))
    rest = size - sum(p.numel() for layer in layers_of(model) for p in layer.parameters())
    # FSDP gathers a layer while another is at work, and embedding and head for the whole pass; each with its gradient,
    # which is summed over the ranks in float32.
    return 2.0 * dtype.itemsize * (2 * layer + rest) + 4.0 * max(layer, rest)


def engine(config: Config, model: Any) -> Parts:
    """Memory of one engine, on each of its GPUs: what it cannot do without."""
    settings, text = config.engine, model.config.get_text_config()
    dtype, shared = getattr(torch, settings.dtype), settings.tensor_parallel
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    one = 2.0 * text.num_hidden_layers * width * dtype.itemsize * settings.max_length
    return {
        "weights": dtype.itemsize * sum(p.numel() for p in model.parameters()) / shared,
        "cache of one episode": one / shared,
        "one pass": settings.max_batch_tokens * measured(model, dtype).layer / shared
        + 4.0 * settings.max_sequences * text.vocab_size,
    }


def weights_in_shared_memory(config: Config, model: Any) -> float:
    """Bytes that new weights take in `/dev/shm` on the way to the engines, which they travel as float32.

    Each vLLM engine has a segment of its own; Ray keeps them once more.
    """
    copies = config.engine.count * (config.engine.kind == "vllm") + (config.cluster == "ray")
    return 4.0 * copies * sum(p.numel() for p in model.parameters())


def total(parts: Parts) -> float:
    """In bytes."""
    return sum(parts.values())


def shown(parts: Parts) -> str:
    """`weights 7.1 + gradients 7.1 = 14.2 GiB`."""
    return " + ".join(f"{name} {part / GIB:.1f}" for name, part in parts.items()) + f" = {total(parts) / GIB:.1f} GiB"


def measured(model: Any, dtype: torch.dtype) -> Kept:
    """What a model made by `packed_check.build` keeps for the backward pass."""
    model = model.to(torch.bfloat16)  # the only precision in which a mixture of experts runs like this
    model.config.get_text_config()._experts_implementation = "grouped_mm"
    model.set_attn_implementation(_SIZES)
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, Tensor] = {}
    edges: list[tuple[float, float]] = []

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage()._cdata) not in own:
            seen[place] = tensor
        return tensor

    def size() -> float:
        return float(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))

    ids = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _watched(layers_of(model), size, edges):
        model.base_model(input_ids=ids, position_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    each = [after - before for before, after in edges]
    scale = dtype.itemsize / torch.bfloat16.itemsize / _TOKENS
    return Kept(sum(each) * scale, max(each) * scale, (size() - sum(each)) * scale)


@contextmanager
def _watched(layers: list[Any], size: Any, edges: list[tuple[float, float]]) -> Iterator[None]:
    """Note what is kept before and after each layer."""
    before: list[float] = []
    hooks = [layer.register_forward_pre_hook(lambda *_: before.append(size())) for layer in layers]
    hooks += [layer.register_forward_hook(lambda *_: edges.append((before.pop(), size()))) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Attention(torch.autograd.Function):
    """Keeps what a fused kernel keeps: its inputs, its output, and a number for each head and token."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError


AttentionInterface.register(
    _SIZES, lambda module, query, key, value, *_, **__: (_Attention.apply(query, key, value).transpose(1, 2), None)
)
AttentionMaskInterface.register(_SIZES, lambda *_, **__: None)
