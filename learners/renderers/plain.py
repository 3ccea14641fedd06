"""Raw continuation: prompt, turns and observations are one running text, as base models know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from learners.renderers.outside import Outside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainRenderer:
    """Every text as it is. What spells a control token is text, too; only a begin token stands before the prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._outside = Outside(tokenizer)
        self._first = _begin_token(tokenizer)

    def begin(self, prompt: str, info: Mapping[str, Any]) -> list[int]:
        return [*self._first, *self._outside(prompt)]

    def observe(self, text: str, info: Mapping[str, Any]) -> list[int]:
        # Some tokenizers put a token before an empty text, too.
        return self._outside(text) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        # The token that ends a turn is for the engine; the environment would read it as text. Other special tokens are
        # text: a tokenizer may hold the tags of a protocol as such.
        said = [token for token in ids if token not in self._ends]
        text: str = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Tokens that end a turn. Read when the first turn has been sampled: then the engine has fetched the model."""
        from transformers import GenerationConfig

        ends: Any = None
        name = self._tokenizer.name_or_path
        if name:
            with suppress(OSError, ValueError):  # a folder may lack it
                ends = GenerationConfig.from_pretrained(name, local_files_only=True).eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        own = (self._tokenizer.eos_token_id, self._tokenizer.pad_token_id)
        return frozenset(end for end in (*ends, *own) if end is not None)


def _begin_token(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that the tokenizer puts before a text, e.g. `[1]` of Llama; empty where it puts none."""
    first = tokenizer.bos_token_id
    if first is None:
        return []
    return [first] if tokenizer.encode("a")[:1] == [first] else []
