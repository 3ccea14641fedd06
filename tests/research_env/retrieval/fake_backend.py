"""A backend that does what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from research_env.errors import RetrievalUnavailable
from research_env.types import Corpus, Hit, Passage


def hits(query: str, top_k: int) -> list[Hit]:
    return [Hit(Passage(f"{query}{i}", query, f"text {i}"), 1.0 / (i + 1)) for i in range(top_k)]


class Backend:
    """Answers what `hits` says; `during` runs inside every call."""

    settings: dict[str, Any] = {"engine": "test"}

    def __init__(self, max_batch: int = 4, concurrency: int = 1) -> None:
        self.corpus = Corpus("pool", 3, "abc")
        self.max_batch, self.concurrency = max_batch, concurrency
        self.calls: list[list[str]] = []
        self.during: Callable[[], None] = lambda: None

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        self.calls.append(list(queries))
        self.during()
        return [hits(query, top_k) for query in queries]

    def close(self) -> None:
        pass


def failing(backend: Backend, *errors: Exception | None) -> None:
    """The next calls raise these, in turn; None lets one pass, and so do all after the last."""
    left = list(errors)

    def during() -> None:
        if left and (error := left.pop(0)):
            raise error

    backend.during = during


def hold(backend: Backend) -> tuple[threading.Event, threading.Event]:
    """From now on calls tell by the first event that they have begun, and end only once the second is set."""
    busy, free = threading.Event(), threading.Event()

    def during() -> None:
        busy.set()
        free.wait(10)

    backend.during = during
    return busy, free


def nobody_there() -> None:
    raise RetrievalUnavailable("nobody there")
