"""Names from a table, or from somebody else's package as `module:name`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from research_env.errors import ConfigurationError


def choose(table: Mapping[str, Any], what: str, name: str) -> Any:
    """`table[name]`.

    Raises:
        ConfigurationError: it is not there; names the closest that is.
    """
    if name not in table:
        close = difflib.get_close_matches(name, table, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"{what}={name!r} is unknown; known: {', '.join(table)}{hint}")
    return table[name]


def load(table: Mapping[str, str], what: str, name: str) -> Any:
    """Resolve `module:attribute` from a table, or given directly as such by an outsider.

    Raises:
        ConfigurationError: it is not in the table, or cannot be imported.
    """
    target = name if ":" in name else choose(table, what, name)
    module, attribute = target.split(":", 1)
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{what}={name!r} cannot be loaded: {error}") from error
