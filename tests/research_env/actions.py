"""Short ways to write what the research protocol parses and renders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from research_env.protocols.base import Action, Calls
from research_env.protocols.research import ResearchProtocol
from research_env.tools.base import Context
from research_env.tools.search import Search
from research_env.types import Call, Passage, Result

FIRST = {"question_id": "2hop__0"}
"""Of `musique_home`: "Who founded the founder of Varn0a?" -> Varn0c, by Varn0b."""
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


def search_turn(query: str) -> str:
    """A turn that searches, in the protocol's own form."""
    return f"<think> I look. </think> <search> {query} </search>"


def answer_turn(text: str) -> str:
    """A turn that answers, in the protocol's own form."""
    return f"<think> I know. </think> <answer> It is \\boxed{{{text}}}. </answer>"
