"""Text from outside as tokens. None of them is a control token, whatever the text spells."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"[<\[]\S+[>\]]")
_BARS = re.compile(r"[<\[][|｜].*[|｜][>\]]")


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tokens that structure what a model reads, e.g. `{151645: "<|im_end|>", …}`.

    They are the special ones; and of the others that were added, those that are written between bars (`<|fim_prefix|>`)
    and the markup of the chat template (`<tool_call>`). A policy's own tags, added as usual tokens, are none: an
    environment has to write them.
    """
    template = json.dumps(tokenizer.chat_template or "", ensure_ascii=False)
    found = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special
        or _BARS.fullmatch(token.content)
        or (_MARKUP.fullmatch(token.content) and token.content in template)
    }
    return found | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


class Outside:
    """Encodes text from outside. It may be called on several threads at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Make an encoder beside the tokenizer's own, which stays as it is."""
        named = control_tokens(tokenizer)
        self.control = frozenset(named)
        # Where a text has characters that the vocabulary lacks, this one is right.
        self._never = self.control - {tokenizer.unk_token_id}
        self._spelled = re.compile(
            "|".join(map(re.escape, sorted(filter(None, named.values()), key=len, reverse=True)))
        )
        self._encode = _fast(tokenizer, self.control) if tokenizer.is_fast else _slow(tokenizer)

    def __call__(self, text: str) -> list[int]:
        """Ids of a text, `[O]`, with no special token around it."""
        ids: list[int] = self._encode(text)
        if self._never.isdisjoint(ids):
            return ids
        # The vocabulary has the control token as a word, too: its first character is encoded apart from the others.
        cuts = [0, *(match.start() + 1 for match in self._spelled.finditer(text)), len(text)]
        parts = [self._encode(text[start:stop]) for start, stop in pairwise(cuts)]
        return [each for part in parts for each in part if each not in self._never]


def _fast(tokenizer: Any, control: frozenset[int]) -> Any:
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["id"] in control
    backend = Tokenizer.from_str(json.dumps(state))
    backend.no_truncation()
    backend.no_padding()
    # Special tokens are then encoded as what they are spelled with.
    backend.encode_special_tokens = True
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def _slow(tokenizer: Any) -> Any:
    return lambda text: tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
