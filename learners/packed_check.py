"""Whether packed attention serves a model, found out from its configuration alone.

The model is built without memory (PyTorch's meta device) and run once. Whatever it asks of its attention beyond plain
causal attention shows in the mask that it makes, or in what it hands to the attention function.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, PretrainedConfig

from learners.names import one_line
from learners.packed_model import unserved

_PROBE = "packed_probe"
_TOKENS = 24
_OWN = "a mask of its own"

_reached: list[tuple[int, set[str]]] = []
"""The attention modules that were called, and what each needs that is not served."""


def build(config: PretrainedConfig) -> Any:
    """A causal language model of this configuration that holds no weights.

    Raises:
        ValueError: it is no causal language model, or its attention cannot be replaced.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, attn_implementation=_PROBE).eval()
    except Exception as error:  # somebody else's model, and possibly somebody else's code
        raise ValueError(f"it cannot be built with packed attention ({one_line(error)[:200]})") from error


def check(model: Any, longest: int) -> None:
    """Run a model made by `build`.

    Args:
        model: Made by `build`.
        longest: Tokens of the longest sequence: a window that is no smaller changes nothing.

    Raises:
        ValueError: packed attention does not serve the model; the message does not name the model.
    """
    # Mamba, gated delta networks and the like convolve over neighbours, also from one sequence into the next.
    if convolving := _convolving(model):
        raise _refusal({f"convolutions over tokens ({convolving})"})
    _reached.clear()
    model.config.get_text_config()._packed_longest = longest
    # A mixture chooses its experts by numbers, which this model does not have; this way to run all needs none.
    model.config.get_text_config()._experts_implementation = "batched_mm"
    zeros = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            model(
                input_ids=zeros, position_ids=zeros, attention_mask=torch.ones_like(zeros), lengths=[longest],
                use_cache=False, logits_to_keep=zeros[0, :1],
            )  # fmt: skip
    except Exception as error:
        raise ValueError(f"its layers cannot be run on packed sequences ({one_line(error)[:200]})") from error
    needed = set().union(*(needs for _, needs in _reached))
    layers, served = model.config.get_text_config().num_hidden_layers, len({module for module, _ in _reached})
    if served < layers:
        needed.add(f"{layers - served} of {layers} layers that mix tokens by other means than attention")
    if needed:
        raise _refusal(needed)


def _refusal(needed: set[str]) -> ValueError:
    windows = [int(size[0]) for need in needed if (size := re.findall(r"a window of (\d+)", need))]
    fix = "choose another model"
    if len(windows) == len(needed):
        fix = f"it is not needed up to --engine.max-length {min(windows)}"
    what = ", ".join(sorted(needed))
    return ValueError(f"it needs {what}, which the trainer's packed attention does not serve; {fix}")


def _convolving(model: Any) -> str:
    """The kinds of modules that hold a convolution."""
    holders = (m for m in model.modules() if any(isinstance(part, torch.nn.Conv1d) for part in m.children()))
    return ", ".join(sorted({type(holder).__name__ for holder in holders}))


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *, lengths: list[int],
    scaling: float | None = None, dropout: float = 0.0, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    needs = unserved(module, lengths, kwargs)
    # A window may be in the mask alone. A mask that has lost its note was changed by the model.
    if attention_mask is not None and (note := getattr(attention_mask, "note", _OWN)):
        needs.add(note)
    _reached.append((id(module), needs))
    return value.new_empty(1, query.shape[2], query.shape[1], value.shape[-1]), None


def _mask(q_length: int, kv_length: int, mask_function: Any, config: Any, **kwargs: Any) -> Tensor:
    """A mask that carries a note of what in it is not plain causal attention; an empty note where it is plain."""
    longest = config.get_text_config()._packed_longest
    to, size = torch.arange(longest), kwargs.get("local_size")
    try:
        plain = all(
            torch.equal(torch.as_tensor(mask_function(0, 0, torch.tensor(at), to)).expand(longest), to <= at)
            for at in (0, longest // 2, longest - 1)
        )
    except RuntimeError:  # it looks at what has no numbers here, e.g. at the padding
        plain = size is not None and size >= longest
    mask: Any = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool, device="meta")
    mask.note = "" if plain else f"a window of {size} tokens" if size else _OWN
    return mask


AttentionInterface.register(_PROBE, _attend)
AttentionMaskInterface.register(_PROBE, _mask)
