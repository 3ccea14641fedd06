"""`search`: passages of the environment's corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from research_env.tools.base import Tool
from research_env.types import Call, Hit, Result


class Search(Tool):
    """Looks up one query a call; the queries of all calls go to the retriever together."""

    name = "search"
    description = "Finds passages of an encyclopedia."
    parameters: ClassVar[Mapping[str, Any]] = {
        "properties": {"query": {"type": "string", "description": "What to look for."}},
        "required": ["query"],
    }
    is_search = True

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """See `Tool.run`; a query that finds nothing has no passages, and a failed one an error."""
        queries = [call.arguments["query"] for call in calls]
        # Not in `__init__`: opening the searcher may build an index, and many environments never search.
        found = self.context.searcher().outcomes(queries, self.context.top_k)
        return [_result(call, hits) for call, hits in zip(calls, found, strict=True)]


def _result(call: Call, hits: list[Hit] | Exception) -> Result:
    if isinstance(hits, Exception):
        return Result(call, error=hits)
    return Result(call, passages=tuple([hit.passage for hit in hits]))
