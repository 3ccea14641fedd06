"""Which models packed attention serves: those it takes match their own attention, the others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from learners.packed_check import build, check
from learners.packed_model import ATTENTION, token_logprobs
from learners.types import Batch

LENGTHS = [30, 11, 17]
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = {"sliding_window": 8}

SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, a window that is switched off": ("qwen2", {"use_sliding_window": False, **WINDOW}),
    "qwen2, a window for no layer": ("qwen2", {"use_sliding_window": True, "max_window_layers": 4, **WINDOW}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, a window as long as the longest": ("mistral", {"sliding_window": 30}),
    "gemma2, no soft cap": ("gemma2", {"attn_logit_softcapping": None, "sliding_window": 30}),
    "gemma3": ("gemma3_text", {"sliding_window": 30}),
    "mixtral": ("mixtral", EXPERTS),
    "phi3": ("phi3", {}),
    "olmo2": ("olmo2", {}),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.5}),
    "gpt2, with dropout": ("gpt2", {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}),
    "afmoe": ("afmoe", {**EXPERTS, "sliding_window": 30}),
    "llama4, one chunk": ("llama4_text", {**EXPERTS, "attention_chunk_size": 30, "intermediate_size_mlp": 48}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral": ("mistral", WINDOW, r"^it needs a window of 8 tokens, .* up to --engine.max-length 8$"),
    "mistral, one too short": ("mistral", {"sliding_window": 29}, "a window of 29 tokens"),
    "qwen2": ("qwen2", {"use_sliding_window": True, "max_window_layers": 2, **WINDOW}, "a window of 8 tokens"),
    "qwen3": ("qwen3", {"use_sliding_window": True, "max_window_layers": 2, **WINDOW}, "a window of 8 tokens"),
    "gemma2": ("gemma2", {"sliding_window": 64}, "it needs a soft cap of its scores, .*; choose another model"),
    "gemma2, both": ("gemma2", WINDOW, "a soft cap of its scores, a window of 8 tokens"),
    "gemma3": ("gemma3_text", WINDOW, "a window of 8 tokens"),
    "gpt_oss": ("gpt_oss", {**EXPERTS, "sliding_window": 64}, "it needs attention sinks"),
    "llama4, chunks": ("llama4_text", {**EXPERTS, "attention_chunk_size": 8}, "a window of 8 tokens"),
    "qwen3_next": ("qwen3_next", {}, "convolutions over tokens .*DeltaNet"),
    "mamba": ("mamba", {}, "convolutions over tokens .*Mamba"),
    "falcon_h1": ("falcon_h1", {}, "convolutions over tokens"),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}, "4 of 4 layers that mix tokens by other means"),
    "bloom, alibi": ("bloom", {}, "layers that mix tokens by other means"),
    "bert": ("bert", {}, "attention to later tokens"),
    "doge": ("doge", {}, "a mask of its own"),
    "gptj": ("gptj", {"rotary_dim": 4}, "cannot be built with packed attention"),
}


def configured(kind: str, more: dict[str, Any]) -> Any:
    return AutoConfig.for_model(kind, **{**SMALL, **more})


def batch_of() -> Batch:
    rng = np.random.default_rng(0)
    size = sum(LENGTHS)
    mask = np.ones(size, bool)
    mask[np.cumsum([0, *LENGTHS[:-1]])] = False
    nothing = np.zeros(size, np.float32)
    ids = rng.integers(3, 64, size)
    return Batch(ids, np.array(LENGTHS), mask, np.zeros(size, np.int64), nothing, nothing, nothing)


def alone(model: Any, batch: Batch) -> np.ndarray:
    """Each sequence by itself, with the model's own attention."""
    values = []
    for ids in np.split(batch.ids, np.cumsum(batch.lengths)[:-1]):
        logprobs = torch.log_softmax(model(torch.tensor(ids)[None]).logits[0].float(), -1)
        values += [logprobs[t - 1, ids[t]].item() for t in range(1, len(ids))]
    return np.array(values)


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_matches_the_models_own_attention(name: str) -> None:
    config = configured(*SERVED[name])
    check(build(config), max(LENGTHS))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
        expected = alone(model, batch_of())
        model.set_attn_implementation(ATTENTION)
        found = token_logprobs(model, batch_of()).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_by_name(name: str) -> None:
    kind, more, named = REFUSED[name]
    with pytest.raises(ValueError, match=named) as caught:
        check(build(configured(kind, more)), max(LENGTHS))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "gemma2", "gpt_oss"])
def test_the_attention_itself_refuses_too(name: str) -> None:
    """For whoever loads a model without the check."""
    kind, more, _ = REFUSED[name]
    model = AutoModelForCausalLM.from_config(configured(kind, more), attn_implementation=ATTENTION)
    with pytest.raises(ValueError, match="packed attention does not serve"):
        token_logprobs(model, batch_of())


def test_an_argument_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of transformers may hand over something new."""
    model = AutoModelForCausalLM.from_config(configured("llama", {}), attn_implementation=ATTENTION)
    attend = transformers.models.llama.modeling_llama.LlamaAttention.forward
    monkeypatch.setattr(
        transformers.models.llama.modeling_llama.LlamaAttention, "forward",
        lambda self, *args, **kwargs: attend(self, *args, tilt=0.5, **kwargs),
    )  # fmt: skip
    with pytest.raises(ValueError, match="does not serve tilt"):
        token_logprobs(model, batch_of())
