"""What comes from somebody else's environment, in the form that the learners work with. Pure functions."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

_LARGEST = 3e38
"""Advantages are float32: what is larger becomes infinite there."""
_DEPTH = 50
"""Levels of a value that are read; what holds itself would have no end."""


def text(value: str) -> str:
    """A text that can be encoded: the two halves of a character are joined, and a half alone becomes U+FFFD.

    JSON can hold such halves (surrogates), and tokenizers, files and terminals refuse them.
    """
    if value.isascii():  # nearly all texts, and much faster than to encode them
        return str(value)
    try:
        value.encode()
        return str(value)
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any, depth: int = _DEPTH, inside: tuple[int, ...] = ()) -> Any:
    """A value as JSON has it: None, bool, int, float, str, list, or dict with `str` keys.

    NumPy scalars and arrays (and whatever else has `tolist`) become numbers and lists, sets become sorted lists, bytes
    text, dataclasses dictionaries. A number that is not finite becomes None, which means "there is none". What is left
    (a path, a date) becomes its `str`, and what lies inside itself `"…"`; `inside` has the ids of what this lies in.
    """
    kind = type(value)  # the usual ones first: this is called for each value of `info`, at each step
    if kind is str:
        return text(value)
    if value is None or kind is bool:
        return value
    if kind in (dict, list) and depth and id(value) not in inside:
        inside = (*inside, id(value))
        if kind is list:
            return [plain(each, depth - 1, inside) for each in value]
        return {plain_key(key): plain(each, depth - 1, inside) for key, each in value.items()}
    match value:
        case str():
            return text(value.value if isinstance(value, Enum) else value)
        case int():
            # Beyond a float is as infinite as there, and JSON refuses more than 4,300 digits.
            return int(value) if abs(value) <= sys.float_info.max else None
        case float():
            return float(value) if math.isfinite(value) else None
        case bytes() | bytearray():
            return bytes(value).decode(errors="replace")
    if depth == 0 or id(value) in inside:
        return "…"
    inside = (*inside, id(value))
    if isinstance(value, Enum):
        return plain(value.value, depth - 1, inside)
    if hasattr(value, "tolist") and not isinstance(value, type):
        return plain(value.tolist(), depth - 1, inside)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {plain_key(key): plain(each, depth - 1, inside) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        # Their order differs from process to process.
        return sorted((plain(each, depth - 1, inside) for each in value), key=str)
    if isinstance(value, Iterable):
        return [plain(each, depth - 1, inside) for each in value]
    return text(str(value))


def plain_key(key: Any) -> str:
    """A key of a dictionary, as JSON has it."""
    return text(key) if isinstance(key, str) else str(plain(key))


def number(value: Any) -> float:
    """A finite number: of any numeric type, or an array of one number.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str | bytes | None):
        try:
            found = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # torch raises the last
            found = math.nan
        if abs(found) <= _LARGEST:
            return found
    raise ValueError(f"{shown(value)} is not a finite number")


def shown(value: Any) -> str:
    """A value in a message: one line, and not a long one."""
    return text(" ".join(reprlib.repr(value).split()))
