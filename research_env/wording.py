"""What is wrong with a value, in plain words. Pydantic's own speak of tuples, and people write JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "extra_forbidden": "is unknown",
    "missing": "is missing",
    "string_type": "give a text",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a number that is not infinite",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "list_type": "give a list",
    "tuple_type": "give a list",
    "dict_type": "give an object, name to value",
    "literal_error": "give {expected}",
    "greater_than": "give more than {gt:,}",
    "greater_than_equal": "give {ge:,} or more",
    "less_than": "give less than {lt:,}",
    "less_than_equal": "give {le:,} or less",
    "too_short": "give at least {min_length}",
    "too_long": "give at most {max_length}",
    "string_too_short": "give a text of {min_length} or more characters",
    "string_too_long": "give a text of at most {max_length} characters",
}
"""Type of an error of pydantic -> what to say, with places for its `ctx`."""


def fault(error: Mapping[str, Any]) -> str:
    """One error of `pydantic.ValidationError.errors()` as a clause, e.g. `give 1 or more`."""
    # A validator's own message is already meant for people.
    words = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    return words.format(**error.get("ctx", {})) if error["type"] in _WORDS else words


def place(error: Mapping[str, Any]) -> str:
    """Where it stands, as a person would write it: `paragraphs[3].title`; empty for the whole."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
