"""What the files of this folder share: official rows that are checked one by one, lazy splits, selection by hops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ValidationError

from research_env import wording
from research_env.errors import DataInvalid
from research_env.files import rows
from research_env.text import short
from research_env.types import Question


class OfficialRow(BaseModel):
    """Base of the models of one row, as its authors publish it. Fields that a model does not name are allowed."""

    id: str
    answerable: bool
    """False for a row that is not a question of the set, but whose paragraphs are in the pool."""


RowT = TypeVar("RowT", bound=OfficialRow)


def read_rows(path: Path, model: type[RowT]) -> Iterator[tuple[int, RowT]]:
    """Validated rows of an installed file with their 1-based line numbers.

    Raises:
        DataInvalid: a row is not what the format promises; names file, line and field.
    """
    for number, row in rows(path):
        yield number, check(model, row, f"{path}, line {number}")


def check(model: type[RowT], row: Any, where: str) -> RowT:
    """`row` as a `model`.

    Raises:
        DataInvalid: the first thing that is wrong with it: `where`, the field and its value, shortened.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field, message = wording.place(first), wording.fault(first)
    if first["type"] == "missing":
        raise DataInvalid(f"{where}: {field} is missing")
    if not isinstance(row, dict):
        raise DataInvalid(f"{where}: {short(row)} is not a JSON object; give JSON Lines, one object a line")
    raise DataInvalid(f"{where}: {field}={short(first['input'])}: {message}" if field else f"{where}: {message}")


_alive: WeakValueDictionary[int, Splits] = WeakValueDictionary()


class Splits(Mapping[str, Sequence[Question]]):
    """Split name -> questions; a split is read when it is first asked for, once, whatever the number of threads.

    `Splits({"dev": read_dev, "train": read_train})["dev"]` calls `read_dev` alone.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Sequence[Question]]]) -> None:
        self._readers = dict(readers)
        self._questions: dict[str, Sequence[Question]] = {}
        self._renew_locks()
        _alive[id(self)] = self

    def _renew_locks(self) -> None:
        # Also in a child process, where nobody releases what a thread held at the fork.
        # One lock for each split: a thread that wants the small one must not wait until the large one has been read.
        self._locks = {split: threading.Lock() for split in self._readers}

    def __getitem__(self, split: str) -> Sequence[Question]:
        reader = self._readers[split]
        with self._locks[split]:
            if split not in self._questions:  # a reader that fails leaves nothing here and may be tried again
                self._questions[split] = reader()
            return self._questions[split]

    def __contains__(self, split: object) -> bool:
        # Mapping's own method calls __getitem__, which would read the split to tell whether it is there.
        return split in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def select(questions: Sequence[Question], hops: Sequence[int]) -> Sequence[Question]:
    """The questions with these hop counts. A lazy sequence may select by itself, with a method `with_hops`."""
    with_hops = getattr(questions, "with_hops", None)
    if with_hops is not None:
        return with_hops(hops)
    return [question for question in questions if question.hops in hops]


def _in_child() -> None:
    for splits in list(_alive.values()):
        splits._renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
