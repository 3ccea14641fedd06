"""Renderers: what an environment says becomes token ids, and a turn's ids become text. One rendering a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Renderer(Protocol):
    """Stands between environment and token ids.

    It renders only what the environment says, each part once and when it is new. The ids of a policy's turn go into
    the transcript as they were sampled: text that is decoded and encoded again can come back as other ids.
    Methods may be called on several threads at once.
    """

    def begin(self, prompt: str, info: Mapping[str, Any]) -> list[int]:
        """Ids of the prompt, `[P]`, after which the policy's first turn follows.

        Args:
            prompt: The observation of `reset`.
            info: The `info` of `reset`; see `learners.contract`.
        """
        ...

    def observe(self, text: str, info: Mapping[str, Any]) -> list[int]:
        """Ids to append after a turn, `[O]`; an empty text gives none.

        Args:
            text: The observation of `step`.
            info: The `info` of `step`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a policy's turn, `[C]`, for the environment."""
        ...


RENDERERS: dict[str, str] = {
    "plain": "learners.renderers.plain:PlainRenderer",
    "templated": "learners.renderers.templated:TemplatedRenderer",
}
"""Renderer name -> `module:Class`, called with the policy's tokenizer. These files load without transformers."""
