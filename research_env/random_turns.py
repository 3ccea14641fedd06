"""Random turns: what `action_space.sample()` gives, and so what the random agent plays."""

from __future__ import annotations

import re

import numpy as np

from research_env.protocols.base import ActionProtocol
from research_env.text import FUNCTION_WORDS

# A run of capitalised words, e.g. "Bram Kelmon" or "Vornak Press".
_NAME = re.compile(r"\b[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*)*")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n+")
_LEAD_WORDS = 2
_WORD = re.compile(r"\b[a-z]+\b")


class RandomTurns:
    """Draws well-formed turns at random: what `action_space.sample()` gives, and so the random agent.

    A turn thinks of a random content word of the question, then of a random name in the newest text with the two
    words that lead up to it there ("mayor born in Lundor Quay"), and searches for that name or answers with it;
    names searched before are not taken again. It knows nothing about which word or name matters. Where no search can
    be used, every turn answers.
    """

    ANSWER_RATE = 0.3
    """Chance that a turn answers, once something has been retrieved."""

    def __init__(self, protocol: ActionProtocol, may_search: bool = True) -> None:
        """Keep the protocol; `may_search` is False where the limits leave no room for a search."""
        self._protocol, self._may_search = protocol, may_search
        self._texts: list[str] = [""]  # there is something to sample from before the first question, too
        self._searched: set[str] = set()

    def start(self, question: str) -> None:
        """Forget everything and read a question."""
        self._texts, self._searched = [question], set()

    def read(self, text: str) -> None:
        """Read the text of a search result."""
        self._texts.append(text)

    def sample(self, rng: np.random.Generator) -> str:
        """One turn. Texts are scanned here and not when read, so that episodes which never sample pay nothing."""
        # Policies are warm-started on these turns and cached: another order of the draws makes other policies.
        mentions = self._mentions(self._texts[-1:]) or self._mentions(self._texts)
        before, name = mentions[int(rng.integers(len(mentions)))] if mentions else ([], "nothing")
        words = [word for word in _WORD.findall(self._texts[0]) if word not in FUNCTION_WORDS]
        asked = words[int(rng.integers(len(words)))] if words else ""
        thought = " ".join([asked, *before, name]).strip()
        if not self._may_search or (len(self._texts) > 1 and rng.random() < self.ANSWER_RATE):
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
