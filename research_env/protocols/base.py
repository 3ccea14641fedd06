"""What a protocol is: it parses a turn of the policy once, and writes what the policy reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from research_env.types import Call, Result


@dataclass(frozen=True, slots=True)
class Calls:
    """The policy uses tools. At least one call; the calls of one turn run together."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy ends the episode. `text` is what is scored. A blank one counts as malformed."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """The turn is not an action of the protocol. `reason` is one short clause, without the policy's own text."""

    reason: str


Action = Calls | Answer | Malformed


class ParsedTurn(NamedTuple):
    """One parsed turn of the policy."""

    action: Action
    text: str
    """The turn up to and including the first closing tag that acts: what the transcript keeps."""
    cut: bool
    """True where non-blank text followed that tag and was dropped."""
    format_ok: bool
    """True where the turn has exactly the protocol's form."""


class ActionProtocol(Protocol):
    """Text <-> action, for one family of tags. It is made with the environment's tools, `Protocol(tools)`."""

    stop: tuple[str, ...]
    """Strings after which generation of a turn should stop (they belong to the turn)."""
    instructions: str
    """Default instructions; `{question}` stands where the question goes."""

    def parse(self, text: str) -> ParsedTurn:
        """Parse one policy turn. Any `str` is legal; linear time; never raises."""
        ...

    def neutralise(self, text: str) -> str:
        """Untrusted text (passage, question) such that no tag of the protocol can be read out of it."""
        ...

    def content(self, result: Result) -> str:
        """The result of a call as neutralised text. Where nothing was found, it says so."""
        ...

    def observation(self, contents: Sequence[str]) -> str:
        """What the policy reads after a turn that used tools: the contents of its calls, in their order."""
        ...

    def feedback(self, malformed: Malformed) -> str:
        """One corrective line for a malformed turn."""
        ...

    def search_turn(self, thought: str, query: str) -> str:
        """A well-formed turn that searches."""
        ...

    def answer_turn(self, thought: str, answer: str) -> str:
        """A well-formed turn that answers."""
        ...


# Checked by name, because somebody else's protocol need not be derived from `ActionProtocol`.
PARTS = (
    "stop", "instructions", "parse", "neutralise", "content", "observation", "feedback", "search_turn", "answer_turn",
)  # fmt: skip
"""What an `ActionProtocol` must have."""
