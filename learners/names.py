"""Names: from a table, or from somebody else's package as `module:name`. Every plug-in is found this way.

`research_env.names` does the same for the environment; the two packages share no code, so each has its own.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'grpo'?"`, or an empty string where nothing known is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def flat(text: object) -> str:
    """A text or a message without line breaks."""
    return " ".join(str(text).split())


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and its message."""
    return flat(f"{type(error).__name__}: {error}")


def load(table: Mapping[str, str], what: str, name: str) -> Any:
    """What `name` stands for: the table's `module:attribute`, or `name` itself where it has that form.

    Args:
        table: Name -> `module:attribute`.
        what: The setting, for messages, e.g. `"--engine.kind"`.
        name: A name of the table, or `module:attribute`.

    Raises:
        ValueError: the name is unknown (the closest known one is named), or cannot be imported.
    """
    if ":" not in name and name not in table:
        known = f"{', '.join(table)}, or module:Name" if table else "module:Name"
        raise ValueError(f"{what} {name} is unknown; known: {known}{did_you_mean(name, table)}")
    module, attribute = table.get(name, name).split(":", 1)
    try:
        return getattr(import_module(module), attribute)
    # Somebody else's module may raise anything while it is imported.
    except Exception as error:
        raise ValueError(f"{what} {name} cannot be loaded ({one_line(error)})") from error


def check(
    table: Mapping[str, str], what: str, name: str, needs: Sequence[str] = (), takes: Sequence[str] | None = None
) -> Any:
    """Load a class or a function, and check that it fits without calling it: some classes start processes.

    Args:
        table: As `load`.
        what: As `load`.
        name: As `load`.
        needs: Attributes that it must have. Where any are named it must be a class.
        takes: Names of the arguments that it will be called with, for messages; `"seed="` is passed by its name, the
            others by position. None checks no call.

    Returns:
        The class or function.

    Raises:
        ValueError: as `load`; or it is not a class; or it lacks an attribute; or the call does not fit.
    """
    target = load(table, what, name)
    if needs and not isinstance(target, type):
        raise ValueError(f"{what} {name} is not a class but {type(target).__name__}")
    missing = [part for part in needs if not hasattr(target, part)]
    if missing:
        raise ValueError(f"{what} {name} lacks: {', '.join(missing)}")
    if takes is not None:
        _check_call(what, name, target, takes)
    return target


def _check_call(what: str, name: str, target: Any, takes: Sequence[str]) -> None:
    if not callable(target):
        raise ValueError(f"{what} {name} is {type(target).__name__}, which cannot be called")
    try:
        signature = inspect.signature(target)
    except ValueError:  # a builtin without a signature: only the call itself can tell
        return
    try:
        signature.bind(
            *(each for each in takes if not each.endswith("=")),
            **{each.removesuffix("="): None for each in takes if each.endswith("=")},
        )
    except TypeError as error:
        raise ValueError(f"{what} {name} cannot be called with ({', '.join(takes)}): {error}") from None
