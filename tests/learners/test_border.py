"""Values of somebody else's environment as JSON has them."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from learners.border import number, plain, text


@dataclass
class Point:
    x: np.float32
    name: str


class Colour(Enum):
    RED = 3


class Level(IntEnum):
    HIGH = 2


class Word(StrEnum):
    YES = "yes"


SAME = [None, True, 3, 0.5, "a", [1, "b"], {"a": {"b": [None]}}, 10**30]


@pytest.mark.parametrize("value", SAME)
def test_json_stays_as_it_is(value: Any) -> None:
    assert plain(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(2), 2),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1, 2]), [1, 2]),
        (np.array(3.0), 3.0),
        (np.array([{"a": np.int8(1)}], object), [{"a": 1}]),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        (b"abc\xff", "abc\ufffd"),
        ({2, 1}, [1, 2]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, (2,)), [1, [2]]),
        (range(3), [0, 1, 2]),
        (Point(np.float32(0.25), "p"), {"x": 0.25, "name": "p"}),
        (Path("a/b"), "a/b"),
        (Colour.RED, 3),
        (Level.HIGH, 2),
        (Word.YES, "yes"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (np.datetime64("2020-01-02"), "2020-01-02"),
        (Fraction(1, 3), "1/3"),
        (math.nan, None),
        (np.float32(np.inf), None),
        (np.array([0.5, np.nan]), [0.5, None]),
        (
            MappingProxyType({np.int64(1): 1, (2, 3): 2, None: 3, "\ud800": 4}),
            {"1": 1, "[2, 3]": 2, "None": 3, "\ufffd": 4},
        ),
        (Point, str(Point)),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_everything_else_becomes_json(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_value_that_holds_itself_has_an_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert json.dumps(plain(endless)) == '["\\u2026"]'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("Köln 東京", "Köln 東京"),
        ("a\ud800b", "a\ufffdb"),
        ("\udcff", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_a_text_can_be_encoded(value: str, expected: str) -> None:
    assert text(value) == expected
    text(value).encode()


@pytest.mark.parametrize(
    "value",
    [1, 0.5, True, np.float32(0.5), np.int64(1), np.array(0.5), np.array([[1.0]]), torch.tensor([2.0]), Fraction(1, 2)],
)
def test_a_number_is_a_float(value: Any) -> None:
    assert number(value) == float(np.asarray(value, dtype=object).item() if isinstance(value, Fraction) else value)
    assert type(number(value)) is float


@pytest.mark.parametrize(
    "value",
    [None, "1.0", b"1", math.nan, math.inf, -math.inf, np.float32(np.nan), np.array([1.0, 2.0]), np.array([]), [1.0],
     torch.tensor([1.0, 2.0]), torch.tensor(math.nan), 1j, 10**400, 1e39, {}, np.array(["a"])],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    """1e39 is infinite in float32, which advantages are."""
    with pytest.raises(ValueError, match="is not a finite number"):
        number(value)


def test_an_integer_beyond_float_is_as_none_as_an_infinity() -> None:
    assert plain({"n": 10**5000, "m": -(10**400), "k": 10**300}) == {"n": None, "m": None, "k": 10**300}


def test_what_lies_inside_itself_is_read_once() -> None:
    """Twice inside itself would be read 2 ** 50 times."""
    loop: dict[str, Any] = {"a": 1}
    loop |= {"x": loop, "y": [loop]}
    assert plain(loop) == {"a": 1, "x": "…", "y": ["…"]}
    shared = [1]
    assert plain([shared, shared]) == [[1], [1]]
