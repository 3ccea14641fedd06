"""Short ways to write what the research protocol parses and renders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from research_env.protocols.base import Action, Calls
from research_env.protocols.research import ResearchProtocol
from research_env.tools.base import Context
from research_env.tools.search import Search
from research_env.types import Call, Passage, Result

CONTEXT = Context(pytest.fail, 5)
PROTOCOL = ResearchProtocol([Search(CONTEXT)])


def search(query: str) -> Calls:
    """The action of a turn that searches."""
    return Calls((Call("1", "search", {"query": query}),))


def queries(actions: Sequence[Action]) -> list[str]:
    """The queries of those actions that search."""
    return [call.arguments["query"] for action in actions if isinstance(action, Calls) for call in action.calls]


def result(passages: Sequence[Passage]) -> str:
    """What the policy reads after a search."""
    return PROTOCOL.observation([PROTOCOL.content(Result(Call("1", "search", {}), passages=tuple(passages)))])
