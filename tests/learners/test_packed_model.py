"""Log-probabilities over packed batches against a plain, unpadded forward pass of each sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from learners.packed_model import ATTENTION, load_model, token_logprobs
from learners.packing import pack
from learners.types import Batch, Trajectory

TOLERANCE = 1e-5  # nats, in float32


@pytest.fixture(params=["multi-head", "grouped-query"], scope="module")
def folder(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy, and a model whose four query heads share two key-value heads."""
    if request.param == "multi-head":
        return tiny_folder
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=420, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=False, initializer_range=0.3, max_position_embeddings=512,
        )
    )  # fmt: skip
    into = tmp_path_factory.mktemp("grouped-query")
    model.save_pretrained(into)
    return into


@pytest.fixture
def packed(folder: Path) -> Any:
    return load_model(str(folder), torch.float32, "cpu").eval()


@pytest.fixture
def batch(make_trajectory: Callable[..., Trajectory]) -> Batch:
    """Five sequences of 3 to 90 tokens in one row; one has no sampled token at all."""
    spans = {90: [(10, 30), (60, 90)], 41: [(1, 41)], 17: [(5, 6)], 8: [], 3: [(2, 3)]}
    (made,) = pack([make_trajectory(n, turns, seed=n) for n, turns in spans.items()], 1_000)
    return made


def alone(folder: Path, batch: Batch, temperature: float) -> np.ndarray:
    """The same numbers from plain Hugging Face: one sequence a forward pass, its own attention, no packing."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    values = []
    edges = np.cumsum(batch.lengths)[:-1]
    for ids, mask in zip(np.split(batch.ids, edges), np.split(batch.mask, edges), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor(ids)[None]).logits[0] / temperature
        logprobs = torch.log_softmax(logits, -1)
        values += [logprobs[t - 1, ids[t]].item() for t in range(len(ids)) if mask[t]]
    return np.array(values)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_is_what_each_sequence_gives_alone(folder: Path, packed: Any, batch: Batch, temperature: float) -> None:
    with torch.no_grad():
        values = token_logprobs(packed, batch, temperature).numpy()
    assert values.shape == (int(batch.mask.sum()),) == (92,)
    np.testing.assert_allclose(values, alone(folder, batch, temperature), rtol=0, atol=TOLERANCE)


def test_no_sequence_sees_another(packed: Any, batch: Batch) -> None:
    """Other tokens in the first sequence change its own numbers (50 of them) and no other."""
    ids = batch.ids.copy()
    ids[: batch.lengths[0]] = (ids[: batch.lengths[0]] + 100) % 400 + 1
    with torch.no_grad():
        before, after = token_logprobs(packed, batch), token_logprobs(packed, replace(batch, ids=ids))
    assert (before[:50] != after[:50]).all()
    assert torch.equal(before[50:], after[50:])


def test_no_token_sees_a_later_one(packed: Any, batch: Batch) -> None:
    """In the second sequence, tokens 1 to 40 are trained on; a change of token 25 leaves those before it alone."""
    ids = batch.ids.copy()
    ids[batch.lengths[0] + 25] = ids[batch.lengths[0] + 25] % 400 + 1
    with torch.no_grad():
        before, after = token_logprobs(packed, batch), token_logprobs(packed, replace(batch, ids=ids))
    second = slice(50, 90)
    changed = (before[second] != after[second]).tolist()
    assert changed == [False] * 24 + [True] * 16


def test_gradients_are_those_of_each_sequence_alone(folder: Path, packed: Any, batch: Batch) -> None:
    token_logprobs(packed, batch).sum().backward()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    edges = np.cumsum(batch.lengths)[:-1]
    for ids, mask in zip(np.split(batch.ids, edges), np.split(batch.mask, edges), strict=True):
        logprobs = torch.log_softmax(plain(torch.tensor(ids)[None]).logits[0], -1)
        at = torch.from_numpy(mask.nonzero()[0])
        (logprobs[at - 1, torch.tensor(ids)[at]].sum()).backward()
    for (name, ours), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max()
        assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * scale + 1e-5, name


def test_the_model_is_loaded_with_packed_attention(packed: Any) -> None:
    assert packed.config._attn_implementation == ATTENTION
