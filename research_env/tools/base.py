"""What a tool is, and how the calls of many episodes are run together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from research_env.errors import ConfigurationError
from research_env.text import mended, short
from research_env.types import Call, Hit, Result

_TYPES: dict[Any, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
"""Types of JSON schema that are checked."""


class Searcher(Protocol):
    """Finds passages. `research_env.retrieval.gateway.gateway.Gateway` is the one that is used."""

    def outcomes(self, queries: Sequence[str], top_k: int) -> list[list[Hit] | Exception]:
        """For each query its hits, best first, or the reason why there is no answer now."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a tool may use of its environment."""

    searcher: Callable[[], Searcher]
    """Returns the searcher of the environment's corpus. The first call opens it; later calls are cheap."""
    top_k: int
    """Passages that a search returns."""


class Tool:
    """Base of every tool. Thread-safe: one tool serves many episodes at once."""

    name: ClassVar[str]
    """How the policy calls it: lower-case letters, digits and `_`."""
    description: ClassVar[str]
    """One sentence for the policy."""
    parameters: ClassVar[Mapping[str, Any]]
    """JSON schema of the arguments, e.g. `{"properties": {"query": {"type": "string"}}, "required": ["query"]}`."""
    is_search: ClassVar[bool] = False
    """Whether a call counts as a search: in `info["searches"]`, and against `max_searches`."""

    def __init__(self, context: Context) -> None:
        """Keep the context."""
        self.context = context

    @property
    def required(self) -> list[str]:
        """Names of the arguments that every call must have."""
        return list(self.parameters.get("required", ()))

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as chat templates and model servers take it."""
        # A tool may leave `type` out, but model servers insist on it.
        parameters = {"type": "object", **self.parameters}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def fault(self, arguments: Mapping[str, Any]) -> str:
        """Why a call with these arguments cannot be run, as one clause for the policy; empty where it can."""
        known = self.parameters.get("properties", {})
        for name in self.parameters.get("required", ()):
            if name not in arguments:
                return f"{self.name} needs the argument {name}"
        for name, value in arguments.items():
            if name not in known:
                return f"{self.name} has no such argument; it takes {', '.join(known)}"
            wanted = known[name].get("type")
            # In Python True is an int, in JSON it is none.
            if wanted in _TYPES and (not isinstance(value, _TYPES[wanted]) or (wanted != "boolean" and value is True)):
                return f"{self.name} takes {'an' if wanted == 'integer' else 'a'} {wanted} as {name}"
        return ""

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run calls of this tool, of one episode or of many, and return a result for each, in order.

        What the tool itself does not find is text. A call that cannot be carried out now gets an `error` of its own.
        """
        raise NotImplementedError


def run(tools: Mapping[str, Tool], calls: Sequence[Call]) -> list[Result]:
    """Run calls, those of each tool together, and return a result for each, in order. Never raises."""
    if not calls:
        return []
    if len(calls) == 1 or len({call.tool for call in calls}) == 1:
        return _run_one(tools[calls[0].tool], calls)
    results: dict[int, Result] = {}
    for name in dict.fromkeys(call.tool for call in calls):  # in the order of the calls, so that runs repeat exactly
        places = [place for place, call in enumerate(calls) if call.tool == name]
        results |= zip(places, _run_one(tools[name], [calls[place] for place in places]), strict=True)
    return [results[place] for place in range(len(calls))]


def _run_one(tool: Tool, calls: Sequence[Call]) -> list[Result]:
    try:
        results = tool.run(calls)
        _check(tool, results, calls)
    # One tool's failure must not lose the results of the turn's other tools, nor those of other episodes.
    except Exception as error:
        return [Result(call, error=error) for call in calls]
    return [r if (text := mended(r.text)) is r.text else r._replace(text=text) for r in results]


def _check(tool: Tool, results: Sequence[Result], calls: Sequence[Call]) -> None:
    """What a tool returned; it may be somebody else's."""
    if not isinstance(results, Sequence) or len(results) != len(calls):
        said = f"{len(results)} results" if isinstance(results, Sequence) else type(results).__name__
        raise ConfigurationError(f"tool {tool.name!r} returned {said} for {len(calls)} calls")
    for result in results:
        if not isinstance(result, Result) or not isinstance(result.text, str):
            raise ConfigurationError(f"tool {tool.name!r} returned {short(result)}, not a Result with a text")
