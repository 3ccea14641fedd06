"""The tiny policy is an ordinary Qwen2 for everybody else: tokenizer and model load by Auto classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from learners.tiny.config import TinyConfig
from learners.tiny.model import make_model, make_tokenizer

TURN = "<think> I look for Varn Osta. </think> <search> Varn Osta </search>"


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def made(texts: list[str], tags: list[str]) -> Qwen2Tokenizer:
    return make_tokenizer(texts, tags, 420)


def test_the_tokenizer_loads_as_qwen2_with_equal_ids(loaded: Any, made: Qwen2Tokenizer, texts: list[str]) -> None:
    assert isinstance(loaded, Qwen2Tokenizer)
    assert len(loaded) == len(made)
    for text in [*texts[:6], TURN, "Ünïcode — 東京 <b>&amp;</b>\n\n  indented", ""]:
        assert loaded.encode(text, add_special_tokens=False) == made.encode(text, add_special_tokens=False)


def test_every_tag_is_one_token(loaded: Any, tags: list[str]) -> None:
    for tag in tags:
        (token,) = loaded.encode(tag, add_special_tokens=False)
        assert loaded.convert_ids_to_tokens(token) == tag
        assert loaded.encode(f" {tag}", add_special_tokens=False) == [token], "the space before a tag is its own token"


def test_the_end_of_sequence_is_a_token_that_text_does_not_contain(loaded: Any, texts: list[str]) -> None:
    assert loaded.eos_token == "<|endoftext|>"
    assert loaded.eos_token_id not in loaded.encode("".join(texts[:6]), add_special_tokens=False)


def test_a_turn_survives_the_round_trip_but_for_spaces_before_tags(loaded: Any) -> None:
    decoded = loaded.decode(loaded.encode(TURN, add_special_tokens=False), skip_special_tokens=True)
    assert decoded == "<think> I look for Varn Osta.</think><search> Varn Osta</search>"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<\\"), max_size=40))
def test_any_text_survives_the_round_trip(loaded: Any, text: str) -> None:
    """Byte-level: nothing is unknown. Texts are compared as the tokenizer's own normalisation (NFC) leaves them."""
    import unicodedata

    ids = loaded.encode(text, add_special_tokens=False)
    assert loaded.decode(ids, skip_special_tokens=True) == unicodedata.normalize("NFC", text)


def test_the_model_loads_by_its_auto_class(tiny_folder: Path, loaded: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.dtype == torch.float32
    assert model.config.eos_token_id == loaded.eos_token_id
    assert model.config.vocab_size % 64 == 0
    assert model.config.vocab_size >= len(loaded)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.tensor([loaded.encode(TURN)])
    assert model(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)


def test_a_seed_decides_the_weights(made: Qwen2Tokenizer) -> None:
    config = TinyConfig(hidden=64, layers=2, heads=2, feed_forward=64, vocabulary=420)

    def embedding(seed: int) -> torch.Tensor:
        return make_model(config, made, 128, seed).model.embed_tokens.weight

    assert torch.equal(embedding(3), embedding(3))
    assert not torch.equal(embedding(3), embedding(4))


def test_the_first_layer_looks_one_and_two_tokens_back(made: Qwen2Tokenizer, texts: list[str]) -> None:
    """Half of layer 0's heads attend to the token before, half to the one before that, however far from the start."""
    config = TinyConfig(hidden=64, layers=2, heads=2, feed_forward=64, vocabulary=420)
    model = make_model(config, made, 128, seed=0).eval()
    model.set_attn_implementation("eager")
    ids = torch.tensor([made.encode(texts[0])[:40]])
    with torch.no_grad():
        attention = model(ids, output_attentions=True).attentions[0][0]
    for head, back in enumerate((1, 2)):
        before = attention[head].diagonal(-back)
        assert before.mean() > 0.5
        assert before.min() > 0.2
