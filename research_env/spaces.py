"""The space of texts. Gymnasium's own `Text` cannot hold Unicode prose: its charset is a list of characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space

from research_env.protocols import ActionProtocol


class Prose(Space[str]):
    """Every `str` of at most `max_length` characters (no bound where it is None)."""

    def __init__(
        self,
        max_length: int | None = None,
        sampler: Callable[[np.random.Generator], str] = lambda rng: "",
        seed: int | None = None,
    ) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)
        self.max_length, self._sampler = max_length, sampler

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """An example text, drawn from this space's own generator."""
        return self._sampler(self.np_random)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prose) and self.max_length == other.max_length

    def __repr__(self) -> str:
        return "Prose()" if self.max_length is None else f"Prose({self.max_length})"


# A run of capitalised words, e.g. "Bram Kelmon" or "Vornak Press".
_NAME = re.compile(r"\b[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*)*")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n+")
_LEAD_WORDS = 2
_WORD = re.compile(r"\b[a-z]+\b")
_STOP_WORDS = {
    "a", "an", "and", "are", "by", "did", "do", "does", "for", "from", "has", "have", "in", "is", "of", "on", "that",
    "the", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "how", "with",
}  # fmt: skip


class RandomTurns:
    """Draws well-formed turns at random: what `action_space.sample()` gives, and so the random agent.

    A turn thinks of a random content word of the question, then of a random name in the newest text with the two
    words that lead up to it there ("mayor born in Lundor Quay"), and searches for that name or answers with it;
    names searched before are not taken again. It knows nothing about which word or name matters.
    """

    ANSWER_RATE = 0.3
    """Chance that a turn answers, once something has been retrieved."""

    def __init__(self, protocol: ActionProtocol) -> None:
        self._protocol = protocol
        self._texts: list[str] = []
        self._searched: set[str] = set()

    def start(self, question: str) -> None:
        """Forget everything and read a question."""
        self._texts, self._searched = [question], set()

    def read(self, text: str) -> None:
        """Read the text of a search result."""
        self._texts.append(text)

    def sample(self, rng: np.random.Generator) -> str:
        """One turn. Texts are scanned here and not when read, so that episodes which never sample pay nothing."""
        mentions = self._mentions(self._texts[-1:]) or self._mentions(self._texts)
        before, name = mentions[int(rng.integers(len(mentions)))] if mentions else ([], "nothing")
        words = [word for word in _WORD.findall(self._texts[0]) if word not in _STOP_WORDS]
        asked = words[int(rng.integers(len(words)))] if words else ""
        thought = " ".join([asked, *before, name]).strip()
        if len(self._texts) > 1 and rng.random() < self.ANSWER_RATE:
            return self._protocol.answer_turn(thought, name)
        self._searched.add(name)
        return self._protocol.search_turn(thought, name)

    def _mentions(self, texts: list[str]) -> list[tuple[list[str], str]]:
        return [mention for text in texts for mention in _mentions(text) if mention[1] not in self._searched]


def _mentions(text: str) -> list[tuple[list[str], str]]:
    """`(the words before it in its sentence, name)` for every name in a text."""
    found = []
    for sentence in _SENTENCE.split(text):
        for match in _NAME.finditer(sentence):
            name = match.group()
            if match.start() == 0 and " " not in name and match.end() < len(sentence):
                continue  # "The", "Who", "It": a capital only because a sentence begins
            found.append((sentence[: match.start()].split()[-_LEAD_WORDS:], name))
    return found
