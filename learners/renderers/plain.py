"""Raw continuation: prompt, turns and observations are one running text, as base models know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainRenderer:
    """Every text as it is, without special tokens around it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def begin(self, prompt: str, info: Mapping[str, Any]) -> list[int]:
        return self._encode(prompt)

    def observe(self, text: str, info: Mapping[str, Any]) -> list[int]:
        # Some tokenizers put a token before an empty text, too.
        return self._encode(text) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        # The token that ends a turn is for the engine; the environment would read it as text.
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        # A beginning-of-sequence token belongs to a chat template or nowhere, and never into the middle.
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids
