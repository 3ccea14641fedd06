"""What the environment says becomes ids, and a turn's ids become text."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from learners.renderers import RENDERERS
from learners.renderers.plain import PlainRenderer
from learners.renderers.templated import TemplatedRenderer

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %} [reply]{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def templated(tokenizer: Any) -> TemplatedRenderer:
    tokenizer.chat_template = TEMPLATE
    return TemplatedRenderer(tokenizer)


@pytest.mark.parametrize("name", RENDERERS)
def test_every_name_of_the_table_is_a_renderer(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = TEMPLATE
    module, attribute = RENDERERS[name].split(":")
    renderer = getattr(import_module(module), attribute)(tokenizer)
    assert renderer.decode(renderer.observe(" gold4 ", {})) == " gold4 "


def test_plain_is_raw_continuation(tokenizer: Any) -> None:
    renderer = PlainRenderer(tokenizer)
    text = "<search> Varn Osta </search>"
    assert renderer.begin("Who founded it?", {}) == tokenizer.encode("Who founded it?", add_special_tokens=False)
    assert renderer.observe(text, {}) == tokenizer.encode(text, add_special_tokens=False)
    assert isinstance(renderer.begin("x", {}), list)


def test_an_empty_observation_is_no_ids(tokenizer: Any, templated: TemplatedRenderer) -> None:
    assert PlainRenderer(tokenizer).observe("", {}) == []
    assert templated.observe("", {}) == []


def test_decoding_leaves_out_special_tokens(tokenizer: Any) -> None:
    """The token that ends a turn is not text; tags of the protocol are."""
    ids = [*tokenizer.encode(" it is <answer> gold4 </answer>"), tokenizer.eos_token_id]
    assert PlainRenderer(tokenizer).decode(ids) == tokenizer.decode(ids[:-1])
    assert "</answer>" in PlainRenderer(tokenizer).decode(ids)


def test_a_chat_template_wraps_the_prompt_alone(tokenizer: Any, templated: TemplatedRenderer) -> None:
    assert templated.begin("door 4:", {}) == tokenizer.encode("[user] door 4: [reply]", add_special_tokens=False)
    assert templated.observe(" gold4 ", {}) == tokenizer.encode(" gold4 ", add_special_tokens=False)


def test_a_tokenizer_without_a_template_is_one_clear_error(tokenizer: Any, tiny_folder: Path) -> None:
    assert tokenizer.chat_template is None
    with pytest.raises(ValueError, match="has no chat template; use an instruct model, or --renderer plain") as caught:
        TemplatedRenderer(tokenizer)
    assert str(tiny_folder) in str(caught.value)
