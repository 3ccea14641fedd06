"""Tools, protocol and reward of an environment, made by name and checked: each may be somebody else's.

Everything that can be known of them without an episode is checked here, so that a plug-in that does not fit is one line
when the environment is made, and not a traceback in the middle of a run. Data sets and retrievers are checked where
they are opened, in `research_env.loading` and `research_env.retrieval.addresses`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research_env import names
from research_env.errors import ConfigurationError
from research_env.protocols import PROTOCOLS
from research_env.protocols.base import PARTS, ActionProtocol, ParsedTurn
from research_env.rewards import REWARDS, Outcome
from research_env.text import control_character, one_line
from research_env.tools import TOOLS
from research_env.tools.base import Context, Tool

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def tools(chosen: Sequence[str], context: Context) -> dict[str, Tool]:
    """The tools by the names under which the policy calls them.

    Raises:
        ConfigurationError: a name is unknown, a class is not a tool, two tools have the same name, or none searches.
    """
    found: dict[str, Tool] = {}
    for name in chosen:
        what = f"tools={name!r}"
        tool = names.make(TOOLS, "tools", name, ("name", "description", "parameters", "run"), context)
        if not isinstance(tool, Tool):
            raise ConfigurationError(f"{what}: derive the class from research_env.tools.base.Tool")
        names.check_call("tools", f"{name}.run", tool.run, [])
        if not isinstance(tool.name, str) or not _NAME.fullmatch(tool.name):
            raise ConfigurationError(f"{what} has the name {tool.name!r}: use lower-case letters, digits and _")
        if not isinstance(tool.description, str):
            raise ConfigurationError(f"{what} has the description {tool.description!r}: give a sentence")
        if not _is_schema(tool.parameters):
            raise ConfigurationError(
                f'{what} has parameters={tool.parameters!r}: give {{"properties": {{…}}, "required": […]}}, in which '
                "every required argument is one of the properties"
            )
        if tool.name in found:
            raise ConfigurationError(f"{what}: two tools have the name {tool.name!r}")
        found[tool.name] = tool
    # The prompts of the protocols, and the turns that the action space samples, search.
    if "search" not in found:
        raise ConfigurationError(f"tools={list(chosen)}: name 'search' among them")
    return found


def _is_schema(parameters: Any) -> bool:
    if not isinstance(parameters, Mapping):
        return False
    properties, required = parameters.get("properties", {}), parameters.get("required", ())
    if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
        return False
    return all(isinstance(each, Mapping) for each in properties.values()) and set(required) <= set(properties)


def protocol(name: str, tools: Sequence[Tool]) -> ActionProtocol:
    """The protocol of this name, made with the tools.

    Raises:
        ConfigurationError: the name is unknown, or what it makes is not a protocol.
    """
    made: ActionProtocol = names.make(PROTOCOLS, "protocol", name, PARTS, tuple(tools))
    what = f"protocol={name!r}"
    if not isinstance(made.stop, list | tuple) or not all(isinstance(stop, str) and stop for stop in made.stop):
        raise ConfigurationError(f"{what} has stop={made.stop!r}: give a tuple of strings")
    if not isinstance(made.instructions, str) or made.instructions.count("{question}") != 1:
        raise ConfigurationError(f"{what} has instructions={made.instructions!r}: write {{question}} in it once")
    if found := control_character(made.instructions):
        raise ConfigurationError(
            f'{what}: its instructions hold the control character {found}; write \\\\boxed for \\boxed, or r"…"'
        )
    for turn in ("", made.search_turn("thought", "query"), made.answer_turn("thought", "answer")):
        if not isinstance(parsed := _called(what, made.parse, turn), ParsedTurn):
            raise ConfigurationError(f"{what}: parse({turn!r}) returned {type(parsed).__name__}, not a ParsedTurn")
    return made


def reward(name: str) -> Callable[[Outcome], float]:
    """The reward function of this name.

    Raises:
        ConfigurationError: the name is unknown, or what it stands for gives no number for an episode without an answer.
    """
    function: Callable[[Outcome], float] = names.load(REWARDS, "reward", name)
    names.check_call("reward", name, function, "outcome")
    given = _called(f"reward={name!r}", function, Outcome(None, 0.0, 0.0, format_ok=False, over_length=False))
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ConfigurationError(f"reward={name!r} gave {given!r} for an episode without an answer; give a number")
    return function


def _called(what: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ConfigurationError(f"{what} failed when it was tried ({reason})") from error
