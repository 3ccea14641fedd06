"""The prompt goes through the chat template, then raw continuation.

The instruct models of ReSearch and Search-R1 are trained this way: the whole episode is one turn of the assistant, and
the result of a search is appended inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learners.names import one_line
from learners.renderers.plain import PlainRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACE = "here4stands7the2prompt"


class TemplatedRenderer(PlainRenderer):
    """The prompt as the user's message in the tokenizer's own chat template; all that follows as it is."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tokenizer.

        Raises:
            ValueError: the tokenizer has no chat template, or one that fails or does not write the prompt once.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                f"--renderer templated: the tokenizer of {tokenizer.name_or_path or 'the model'} "
                "has no chat template; use an instruct model, or --renderer plain"
            )
        super().__init__(tokenizer)
        try:
            self._usual = self._controls(self._encode(self._rendered(_PLACE)))
            self._around()
        # The template is a program of the model's author, and may refuse anything.
        except Exception as error:
            raise ValueError(f"--renderer templated: the chat template does not work ({one_line(error)})") from error

    def begin(self, prompt: str, info: Mapping[str, Any]) -> list[int]:
        text = self._rendered(prompt)
        ids = self._encode(text)
        if self._controls(ids) == self._usual:
            return ids
        # The prompt spells a control token. The template's own must stay tokens, and the prompt is encoded as text.
        head, tail = self._around()
        framed = text.startswith(head) and text.endswith(tail) and len(text) >= len(head) + len(tail)
        # Templates may strip white space from a message.
        middle = text[len(head) : len(text) - len(tail)] if framed else prompt
        return [*self._encode(head), *self._outside(middle), *self._encode(tail)]

    def _rendered(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        text: Any = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(text)

    def _encode(self, text: str) -> list[int]:
        # The template writes its special tokens out, so encoding must not add any of its own.
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _controls(self, ids: list[int]) -> int:
        return sum(token in self._outside.control for token in ids)

    def _around(self) -> tuple[str, str]:
        """What the template writes before and after a prompt."""
        head, *tail = self._rendered(_PLACE).split(_PLACE)
        if len(tail) != 1:
            raise ValueError(f"it writes the prompt {len(tail)} times")
        return head, tail[0]
