"""An answer that searches wait for."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from research_env.types import Hit

Key = tuple[str, int]
"""Query and top-k."""


def _running() -> Future[list[Hit]]:
    future: Future[list[Hit]] = Future()
    future.set_running_or_notify_cancel()  # no search may cancel what other searches wait for
    return future


@dataclass(slots=True)
class Wanted:
    """What is known of one answer that is on its way, or is there."""

    future: Future[list[Hit]] = field(default_factory=_running)
    searches: int = 1
    """How many searches still wait for it; a query that nobody waits for any more is not sent."""
    begun: float = 0.0
    """When its call went out (`time.monotonic`); 0 while it is in the queue."""
