"""Tools, protocols and rewards that do not fit are one line when the environment is made, never a traceback later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import pytest

from research_env import plugins
from research_env.errors import ConfigurationError
from research_env.protocols.research import ResearchProtocol
from research_env.tools.base import Tool, run
from research_env.tools.search import Search
from research_env.types import Call, Result
from tests.research_env.actions import CONTEXT

HERE = __name__


class Good(Tool):
    name = "count"
    description = "It counts."
    parameters = {"properties": {"of": {"type": "string"}}, "required": ["of"]}

    def run(self, calls: Sequence[Call]) -> list[Result]:
        return [Result(call, text="3") for call in calls]


class HalfAPair(Good):
    def run(self, calls: Sequence[Call]) -> list[Result]:
        return [Result(call, text="half \ud800") for call in calls]


def test_a_tools_text_is_unicode() -> None:
    assert run({"count": HalfAPair(CONTEXT)}, [Call("1", "count", {"of": "x"})])[0].text == "half \ufffd"


class NotDerived:
    name, description, parameters = "x", "x", {}

    def __init__(self, context: Any) -> None: ...

    def run(self, calls: Any) -> list[Result]:
        return []


class OddName(Good):
    name = "c++"


class NoName(Good):
    name = 5  # type: ignore[assignment]


class NoSchema(Good):
    parameters = None  # type: ignore[assignment]


class UnknownRequired(Good):
    parameters = {"properties": {}, "required": ["of"]}


class TwoArguments(Good):
    def run(self, calls: Any, more: Any) -> list[Result]:  # type: ignore[override]
        return []


class Think(Good):
    name = "think"


class Number(Good):
    parameters = {"properties": {"of": {"type": "integer"}}, "required": ["of"]}


class Raising(Good):
    def __init__(self, context: Any) -> None:
        raise OSError("no licence")


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("NotDerived", "derive the class from research_env.tools.base.Tool"),
        ("OddName", "use lower-case letters, digits and _"),
        ("NoName", "the name 5"),
        ("NoSchema", "parameters=None"),
        ("UnknownRequired", "every required argument is one of the properties"),
        ("TwoArguments", "missing a required argument: 'more'"),
        ("Think", "has a tag of that name"),
        ("Number", "takes an argument of type integer; protocol 'research' gives it a string"),
        ("Raising", "OSError: no licence"),
    ],
)
def test_a_tool_that_does_not_fit(tool: str, said: str) -> None:
    refuses({"tools": ["search", f"{HERE}:{tool}"]}, said)


@pytest.mark.parametrize("tools", [[], [f"{HERE}:Good"]])
def test_a_policy_can_always_search(tools: list[str]) -> None:
    refuses({"tools": tools}, "name 'search' among them")


def test_two_tools_of_one_name() -> None:
    refuses({"tools": ["search", "search"]}, "two tools have the name 'search'")


class BadStop(ResearchProtocol):
    stop = None  # type: ignore[assignment]

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "stop":
            super().__setattr__(name, value)


class BadInstructions(ResearchProtocol):
    def __init__(self, tools: Any) -> None:
        super().__init__(tools)
        self.instructions = "Answer."


class EatenBackslash(ResearchProtocol):
    def __init__(self, tools: Any) -> None:
        super().__init__(tools)
        self.instructions = "Use \boxed{}: {question}"


class ParsesNothing(ResearchProtocol):
    def parse(self, text: str) -> Any:
        return None


class ParsesWithError(ResearchProtocol):
    def parse(self, text: str) -> Any:
        raise IndexError(text)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("BadStop", "stop=None"),
        ("BadInstructions", "write {question} in it once"),
        ("EatenBackslash", r"control character '\x08' before 'oxed{}: {que'; write \\boxed for \boxed"),
        ("ParsesNothing", "returned NoneType, not a ParsedTurn"),
        ("ParsesWithError", "failed when it was tried (IndexError"),
    ],
)
def test_a_protocol_that_does_not_fit(protocol: str, said: str) -> None:
    refuses({"protocol": f"{HERE}:{protocol}"}, said)


def gives_none(outcome: Any) -> None:
    return None


def gives_nan(outcome: Any) -> float:
    return float("nan")


def fails(outcome: Any) -> float:
    return outcome.score


@pytest.mark.parametrize("reward", ["gives_none", "gives_nan", "fails"])
def test_a_reward_that_does_not_fit(reward: str) -> None:
    refuses({"reward": f"{HERE}:{reward}"}, f"reward='{HERE}:{reward}'")


def test_options_that_are_not_json() -> None:
    refuses({"retrieval": {"x": {1}}}, "must be JSON")


def refuses(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gym.make("research_env:ReSearch-Synthetic-v0", disable_env_checker=True, **settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tools_of_ones_own_are_made_with_the_context() -> None:
    made = plugins.tools(["search", f"{HERE}:Good"], CONTEXT)
    assert list(made) == ["search", "count"]
    assert isinstance(made["search"], Search)
    assert made["count"].context is CONTEXT


@pytest.mark.parametrize("brought", [["text"], [Result(Call("1", "count", {}), text=3)], None, []])  # type: ignore[arg-type]
def test_what_a_tool_returns_is_checked(brought: Any) -> None:
    class Odd(Good):
        def run(self, calls: Sequence[Call]) -> Any:
            return brought

    (result,) = run({"count": Odd(CONTEXT)}, [Call("1", "count", {"of": "x"})])
    assert "tool 'count' returned" in str(result.error)


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [("3", "string", True), (3, "string", False), (3, "integer", True), (True, "integer", False), (2.5, "number", True),
     ("x", "number", False), (True, "boolean", True), ([1], "array", True)],
)  # fmt: skip
def test_arguments_have_the_type_that_the_schema_says(value: Any, kind: str, fits: bool) -> None:
    class Typed(Good):
        parameters = {"properties": {"of": {"type": kind}}, "required": ["of"]}

    assert (Typed(CONTEXT).fault({"of": value}) == "") is fits
