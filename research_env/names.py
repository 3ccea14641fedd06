"""Names: from a table, or from somebody else's package as `module:name`. Every plug-in is found this way."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from research_env.errors import ConfigurationError, ResearchError
from research_env.text import one_line


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'musique'?"`, or an empty string where nothing known is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def load(table: Mapping[str, str], what: str, name: str) -> Any:
    """What `name` stands for: the table's `module:attribute`, or `name` itself where it has that form.

    Args:
        table: Name -> `module:attribute`.
        what: What is looked for, for messages, e.g. `"protocol"`.
        name: A name of the table, or `module:attribute`.

    Raises:
        ConfigurationError: the name is unknown (the closest known one is named), or cannot be imported.
    """
    if ":" not in name and name not in table:
        known = f"{', '.join(table)}, or module:name" if table else "module:name"
        raise ConfigurationError(f"{what}={name!r} is unknown; known: {known}{did_you_mean(name, table)}")
    module, attribute = table.get(name, name).split(":", 1)
    try:
        return getattr(import_module(module), attribute)
    # Somebody else's module may raise anything while it is imported.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"{what}={name!r} cannot be loaded ({one_line(reason)})") from error


def make(table: Mapping[str, str], what: str, name: str, needs: Sequence[str], /, *args: Any, **kwargs: Any) -> Any:
    """Load a class or function and call it.

    Args:
        table: As `load`.
        what: As `load`.
        name: As `load`.
        needs: Attributes that the result must have.
        *args: Passed to the call.
        **kwargs: Passed to the call.

    Raises:
        ConfigurationError: as `load`; or the call does not take these arguments, or fails; or its result lacks an
            attribute.
    """
    # The first four are positional only, because what is called may have a keyword argument `name` itself.
    target = load(table, what, name)
    check_call(what, name, target, *args, **kwargs)
    try:
        made = target(*args, **kwargs)
    except ResearchError:
        raise
    except Exception as error:
        if ":" not in name:  # one of our own: a fault here needs its traceback
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"{what}={name!r} failed when it was called ({one_line(reason)})") from error
    missing = [part for part in needs if not hasattr(made, part)]
    if missing:
        raise ConfigurationError(f"{what}={name!r} makes {type(made).__name__}, which lacks: {', '.join(missing)}")
    return made


def check_call(what: str, name: str, target: Any, /, *args: Any, **kwargs: Any) -> None:
    """Check, without calling it, that something can be called with these arguments.

    Raises:
        ConfigurationError: it is not a function or class, or does not take them.
    """
    if not callable(target):
        raise ConfigurationError(f"{what}={name!r} is of type {type(target).__name__}, which cannot be called")
    try:
        inspect.signature(target).bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*(type(a).__name__ for a in args), *(f"{key}=" for key in kwargs)])
        raise ConfigurationError(f"{what}={name!r} cannot be called with ({given}): {error}") from None
    except ValueError:  # a builtin without a signature: the call itself will tell
        pass
