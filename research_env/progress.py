"""Progress of long work, on standard error: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")

_LINE_EVERY = 10.0  # seconds
_STEP = 1_000  # items between two looks at the clock


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of items done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=total)
    said = time.monotonic()

    def step(done: int) -> None:
        nonlocal said
        bar.update(task, completed=done)
        if not console.is_terminal and time.monotonic() - said > _LINE_EVERY:
            said = time.monotonic()
            sys.stderr.write(f"{title}: {done:,}{f' of {total:,}' if total else ''}\n")

    with bar:
        yield step


def track(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Yield the items, and report progress."""
    with progress(title, total) as step:
        for done, item in enumerate(items, 1):
            yield item
            if done % _STEP == 0:
                step(done)
