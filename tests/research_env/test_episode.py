"""The state machine of an episode, stepped without gymnasium, without retrieval and without data."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from research_env import episode as module
from research_env.episode import Episode, Rules
from research_env.errors import ConfigurationError, RetrievalError
from research_env.protocols.base import Answer, Calls, Malformed, ParsedTurn
from research_env.rewards import em
from research_env.tools.base import Tool, run
from research_env.tools.search import Search
from research_env.types import Call, Hit, Hop, Passage, Question, Result, Status
from tests.research_env.actions import CONTEXT, PROTOCOL

QUESTION = Question(
    "q1", "Who wrote Amber Kesh?", ("Bram Tovik",), 1, (Hop("Who wrote Amber Kesh?", "Bram Tovik", "p1"),), ("p1",)
)
FOUND = Passage("p1", "Amber Kesh", "Amber Kesh is by Bram Tovik.")
SEARCH = "<think> x </think> <search> Amber Kesh </search>"
ANSWER = r"<think> x </think> <answer> \boxed{Bram Tovik} </answer>"


def make(max_searches: int = 2, max_turns: int = 4, feedback: bool = False, protocol: Any = PROTOCOL) -> Episode:
    made = Episode(
        protocol, {"search": Search(CONTEXT), "count": Count(CONTEXT)}, Rules(max_searches, max_turns, feedback), em,
        "{question}", {"name": "none"},
    )  # fmt: skip
    made.begin(QUESTION)
    return made


class Count(Tool):
    """A second tool."""

    name, description = "count", "It counts letters."
    parameters = {"properties": {"of": {"type": "string"}}, "required": ["of"]}

    def run(self, calls: Sequence[Call]) -> list[Result]:
        return [Result(call, text=str(len(call.arguments["of"]))) for call in calls]


class Json:
    """A protocol of parallel calls: the turn is a JSON list of `[tool, arguments]`; anything else answers."""

    stop: tuple[str, ...] = ()
    instructions = "{question}"

    def parse(self, text: str) -> ParsedTurn:
        if not text.startswith("["):
            return ParsedTurn(Answer(text), text, False, True)
        calls = tuple(Call(str(n), tool, arguments) for n, (tool, arguments) in enumerate(json.loads(text)))
        return ParsedTurn(Calls(calls), text, False, True)

    def neutralise(self, text: str) -> str:
        return text

    def content(self, result: Result) -> str:
        return result.text or str([passage.id for passage in result.passages or ()])

    def observation(self, contents: Sequence[str]) -> str:
        return "|".join(contents)

    def feedback(self, malformed: Malformed) -> str:
        return malformed.reason


def found(calls: Sequence[Call]) -> list[Result]:
    return [Result(call, passages=(FOUND,)) for call in calls]


def test_an_episode_ends_because_a_status_says_so() -> None:
    episode = make()
    assert episode.status is Status.RUNNING
    move = episode.act(SEARCH)
    assert (move.status, [call.arguments for call in move.calls]) == (Status.RUNNING, [{"query": "Amber Kesh"}])
    step = episode.observe(move, found(move.calls))
    assert (step.status, step.reward, step.info["searches"]) == (Status.RUNNING, 0.0, 1)
    step = episode.observe(episode.act(ANSWER), [])
    assert (step.observation, step.reward, step.status) == ("", 1.0, Status.ANSWERED)
    assert step.info["status"] == "answered"
    assert step.info["reward_parts"] == {"turn": 0.0, "outcome": 1.0}
    assert (step.status.terminated, step.status.truncated) == (True, False)


def test_a_protocol_whose_results_are_empty_does_not_end_the_episode() -> None:
    class Silent(Json):
        def observation(self, contents: Sequence[str]) -> str:
            return ""

    episode = make(protocol=Silent())
    move = episode.act('[["search", {"query": "x"}]]')
    step = episode.observe(move, found(move.calls))
    assert (step.observation, step.status) == ("", Status.RUNNING)


@pytest.mark.parametrize(
    ("rules", "turns", "status"),
    [
        ({"max_searches": 1}, [SEARCH, SEARCH], Status.OUT_OF_SEARCHES),
        ({"max_searches": 0}, [SEARCH], Status.OUT_OF_SEARCHES),
        ({"max_turns": 2}, [SEARCH, SEARCH], Status.OUT_OF_TURNS),
        ({"max_turns": 1}, [ANSWER], Status.ANSWERED),
        ({}, ["no tags"], Status.MALFORMED),
        ({"feedback": True, "max_turns": 1}, ["no tags"], Status.OUT_OF_TURNS),
        ({"feedback": True}, ["no tags", ANSWER], Status.ANSWERED),
    ],
)
def test_budgets(rules: dict[str, Any], turns: list[str], status: Status) -> None:
    episode = make(**rules)
    for turn in turns:
        move = episode.act(turn)
        step = episode.observe(move, found(move.calls))
    assert step.status is status
    assert step.observation == ""
    with pytest.raises(ValueError, match="cannot take a move"):
        episode.observe(move, found(move.calls))


def test_act_changes_nothing_and_a_move_is_frozen() -> None:
    episode = make()
    before = copy.deepcopy({k: v for k, v in vars(episode).items() if k not in ("_protocol", "_tools", "_reward")})
    move = episode.act(SEARCH)
    after = {k: v for k, v in vars(episode).items() if k not in ("_protocol", "_tools", "_reward")}
    assert repr(after.pop("_evidence").__dict__) == repr(before.pop("_evidence").__dict__)
    assert after == before
    with pytest.raises(AttributeError):
        move.status = Status.ANSWERED  # type: ignore[misc]


def test_after_an_outage_the_same_move_is_run_again() -> None:
    episode = make()
    move = episode.act(SEARCH)
    with pytest.raises(RetrievalError, match="away"):
        episode.observe(move, [Result(move.calls[0], error=RetrievalError("the server is away"))])
    assert (episode.status, episode.info["searches"], len(episode.transcript)) == (Status.RUNNING, 0, 1)
    step = episode.observe(move, found(move.calls))
    assert (step.info["turn"], step.info["searches"]) == (1, 1)
    assert step.info["passage_ids"] == ["p1"]
    assert step.info["passages"] == [{"id": "p1", "title": "Amber Kesh", "text": "Amber Kesh is by Bram Tovik."}]


def test_results_that_do_not_belong_to_the_move_are_refused() -> None:
    episode = make()
    move = episode.act(SEARCH)
    with pytest.raises(ValueError, match="with 0 results"):
        episode.observe(move, [])


def test_calls_of_one_turn_run_together_and_are_told_in_order() -> None:
    episode = make(protocol=Json())
    move = episode.act('[["count", {"of": "abc"}], ["search", {"query": "a"}], ["search", {"query": "b"}]]')
    assert move.status is Status.RUNNING
    results = [Result(move.calls[0], text="3"), *found(move.calls[1:])]
    step = episode.observe(move, results)
    assert step.observation == "3|['p1']|['p1']"
    assert (step.info["searches"], step.info["action"]) == (2, "count")
    roles = [message["role"] for message in step.info["messages"]]
    assert roles == ["assistant", "tool", "tool", "tool"]
    assert [call["function"]["name"] for call in step.info["messages"][0]["tool_calls"]] == [
        "count",
        "search",
        "search",
    ]


def test_calls_beyond_the_budget_truncate_the_whole_turn_unrun() -> None:
    episode = make(max_searches=1, protocol=Json())
    move = episode.act('[["search", {"query": "a"}], ["search", {"query": "b"}]]')
    assert (move.calls, move.status) == ((), Status.OUT_OF_SEARCHES)
    assert episode.observe(move, []).info["searches"] == 0


def test_a_tool_that_is_no_search_costs_none() -> None:
    episode = make(max_searches=0, protocol=Json())
    move = episode.act('[["count", {"of": "abc"}]]')
    assert episode.observe(move, [Result(move.calls[0], text="3")]).info["searches"] == 0


def test_a_bad_call_gets_its_text_in_its_place_and_costs_nothing() -> None:
    episode = make(max_searches=1, protocol=Json())
    move = episode.act('[["open", {}], ["search", {"query": "a"}], ["search", {}], ["search", {"query": 3}]]')
    assert [call.arguments for call in move.calls] == [{"query": "a"}]
    step = episode.observe(move, found(move.calls))
    assert step.observation == (
        "there is no such tool; there are: search, count|['p1']|search needs the argument query|"
        "search takes a string as query"
    )
    assert (step.info["searches"], step.info["malformed"], step.status) == (1, None, Status.RUNNING)


def test_a_turn_is_malformed_only_if_every_call_is_bad() -> None:
    step = make(protocol=Json()).observe(make(protocol=Json()).act('[["open", {}], ["search", {}]]'), [])
    assert (step.status, step.info["action"]) == (Status.MALFORMED, "malformed")
    assert step.info["malformed"] == "there is no such tool; there are: search, count"
    episode = make(feedback=True, protocol=Json())
    step = episode.observe(episode.act('[["search", {"q": "x", "query": "y"}]]'), [])
    assert (step.status, step.observation) == (Status.RUNNING, "search has no such argument; it takes query")


def test_a_protocol_that_fails_leaves_the_episode_as_it_was() -> None:
    class Broken(Json):
        def observation(self, contents: Sequence[str]) -> str:
            raise RuntimeError("broken")

    episode = make(protocol=Broken())
    move = episode.act('[["search", {"query": "a"}]]')
    with pytest.raises(RuntimeError, match="broken"):
        episode.observe(move, found(move.calls))
    assert (episode.info["searches"], episode.info["turn"], episode.status) == (0, 0, Status.RUNNING)


def test_instructions_hold_the_question_once() -> None:
    with pytest.raises(ConfigurationError, match="exactly once"):
        Episode(PROTOCOL, {}, Rules(1, 1, False), em, "no place", {})


def test_the_tools_of_many_episodes_run_in_one_call_each() -> None:
    """One outage loses nobody else's result, whether it is a result's error or raised by the tool."""
    asked: list[list[str]] = []

    class Searcher:
        def outcomes(self, queries: Sequence[str], top_k: int) -> list[list[Hit] | Exception]:
            asked.append(list(queries))
            return [RetrievalError("away") if query == "bad" else [Hit(FOUND, 1.0)] for query in queries]

    class Failing(Count):
        def run(self, calls: Sequence[Call]) -> list[Result]:
            raise OSError("gone")

    context = type(CONTEXT)(Searcher, 5)
    tools = {"search": Search(context), "count": Failing(context)}
    calls = [Call("1", "search", {"query": query}) for query in ("a", "bad", "b")]
    results = run(tools, [calls[0], Call("1", "count", {"of": "x"}), *calls[1:]])
    assert asked == [["a", "bad", "b"]]
    assert [type(result.error).__name__ for result in results] == ["NoneType", "OSError", "RetrievalError", "NoneType"]
    assert results[3].passages == (FOUND,)


def test_a_tool_that_returns_too_few_results_fails_its_own_calls() -> None:
    class Short(Count):
        def run(self, calls: Sequence[Call]) -> list[Result]:
            return []

    (result,) = run({"count": Short(CONTEXT)}, [Call("1", "count", {"of": "x"})])
    assert "returned 0 results for 1 calls" in str(result.error)


def test_the_module_knows_neither_gymnasium_nor_retrieval() -> None:
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name and ("retrieval" in name or "gymnasium" in name)]
