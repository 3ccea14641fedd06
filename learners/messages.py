"""What is wrong with a setting, in plain words: pydantic's errors name types of Python and of pydantic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_FIXES = {
    "int": "give a whole number",
    "float": "give a number",
    "finite_number": "give a finite number",
    "decimal": "give a number",
    "bool": "give true or false",
    "string": "give a text",
    "path": "give a path",
    "dict": 'give an object, e.g. {{"name": value}}',
    "mapping": 'give an object, e.g. {{"name": value}}',
    "model": 'give an object, e.g. {{"name": value}}',
    "list": "give a list, e.g. [1, 2]",
    "tuple": "give a list, e.g. [1, 2]",
    "set": "give a list, e.g. [1, 2]",
    "greater_than": "give more than {gt:g}",
    "greater_than_equal": "give {ge:g} or more",
    "less_than": "give less than {lt:g}",
    "less_than_equal": "give {le:g} or less",
    "multiple_of": "give a multiple of {multiple_of:g}",
    "literal_error": "give {expected}",
    "enum": "give {expected}",
    "missing": "it is missing, and has no default",
    "too_short": "give at least {min_length} elements",
    "too_long": "give at most {max_length} elements",
    "string_too_short": "give at least {min_length} characters",
    "string_too_long": "give at most {max_length} characters",
}
"""Type of an error, or the part of it before an underscore -> what to do; filled in from the error's context."""


def fix(error: Mapping[str, Any]) -> str:
    """What to do about one of `ValidationError.errors()`.

    A type of error that is not in the table (somebody else's algorithm may use any) keeps pydantic's own words.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):  # raised by a validator, which says it in its own words
        return str(context["error"])
    for name in (kind, kind.rpartition("_")[0], kind.partition("_")[0]):
        if name in _FIXES:
            try:
                return _FIXES[name].format(**context)
            except ValueError:  # a bound that is no number, e.g. a date of somebody else's
                break
    return str(error["msg"])


def shown(value: Any) -> str:
    """A value as one would write it: text in quotes, null, and objects cut short."""
    if value is None:
        return "null"
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
