"""The prompt goes through the chat template, then raw continuation.

The instruct models of ReSearch and Search-R1 are trained this way: the whole episode is one turn of the assistant, and
the result of a search is appended inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learners.renderers.plain import PlainRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplatedRenderer(PlainRenderer):
    """The prompt as the user's message in the tokenizer's own chat template; all that follows as it is."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer.

        Raises:
            ValueError: the tokenizer has no chat template.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                f"--renderer templated: the tokenizer of {tokenizer.name_or_path or 'the model'} "
                "has no chat template; use an instruct model, or --renderer plain"
            )
        super().__init__(tokenizer)

    def begin(self, prompt: str, info: Mapping[str, Any]) -> list[int]:
        messages = [{"role": "user", "content": prompt}]
        text: Any = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template writes its special tokens out, so encoding must not add any of its own.
        return self._encode(text)
