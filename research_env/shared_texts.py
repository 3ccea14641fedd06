"""Texts in shared memory: what `AsyncVectorEnv(shared_memory=True)`, its default, needs of a space of its own.

`spaces` registers these functions with gymnasium.
Gymnasium makes the memory once, so each environment has room for a text of fixed size; where one is longer, the worker
says so.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any, overload

ROOM = 1 << 18
"""Bytes of one environment's text in UTF-8. A hundred passages of 100 words take about 70,000."""
_HEAD = 4  # bytes in front of it, which hold its length


class SharedTexts(Sequence[str]):
    """The present text of each environment, read when it is asked for; a copy of it is a tuple, which stays."""

    def __init__(self, memory: Sequence[Any]) -> None:
        self._views = [memoryview(each).cast("B") for each in memory]

    def __len__(self) -> int:
        return len(self._views)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        view = self._views[index]
        length = int.from_bytes(view[:_HEAD])
        return bytes(view[_HEAD : _HEAD + length]).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: Any) -> tuple[str, ...]:
        return tuple(self)


def create(space: Any, n: int = 1, ctx: Any = multiprocessing) -> tuple[Any, ...]:
    """Memory for `n` texts."""
    return tuple(ctx.RawArray("c", _HEAD + ROOM) for _ in range(n))


def read(space: Any, shared_memory: tuple[Any, ...], n: int = 1) -> SharedTexts:
    """The texts in it."""
    return SharedTexts(shared_memory)


def write(space: Any, index: int, value: str, shared_memory: tuple[Any, ...]) -> None:
    """Put a text into its place `index`.

    Raises:
        ValueError: it has no room.
    """
    content = value.encode("utf-8", "surrogatepass")
    if len(content) > ROOM:
        raise ValueError(
            f"a text of {len(content):,} bytes has no room in the {ROOM:,} bytes of shared memory: give "
            "AsyncVectorEnv shared_memory=False"
        )
    view = memoryview(shared_memory[index]).cast("B")
    view[_HEAD : _HEAD + len(content)] = content
    view[:_HEAD] = len(content).to_bytes(_HEAD)
