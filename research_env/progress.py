"""Progress of long work, on standard error: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")

_LINE_EVERY = 10.0  # seconds
_STEP = 1_000  # items between two looks at the clock


def note(text: str) -> None:
    """Tell the person who waits what is going on, in a line."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def progress(title: str, total: int | None, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of items done, `before` included: those that an earlier run has done.

    The rate, and from it the time left, is that of this run.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=total, completed=before, rate="")
    began = said = time.monotonic()

    def step(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        rate = _rate(done - before, now - began, total - done if total else None)
        bar.update(task, completed=done, rate=rate)
        if not console.is_terminal and now - said > _LINE_EVERY:
            said = now
            sys.stderr.write(f"{title}: {done:,}{f' of {total:,}' if total else ''}, {rate}\n")

    with bar:
        yield step


def _rate(done: int, seconds: float, left: int | None) -> str:
    """`"95/s, 1:02:30 left"` of items done, the time they took, and items left where that is known."""
    rate = done / max(seconds, 1e-9)
    said = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
    return said if left is None or not rate else f"{said}, {timedelta(seconds=round(left / rate))} left"


def track(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Yield the items, and report progress."""
    with progress(title, total) as step:
        for done, item in enumerate(items, 1):
            yield item
            if done % _STEP == 0:
                step(done)
