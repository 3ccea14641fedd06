"""Rows of a data set as its authors publish them: JSON Lines, read and checked one by one."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import wrap_file

from research_env.errors import ConfigurationError, DataInvalid

_PROGRESS_FROM = 20 << 20  # bytes; smaller files take less than a second


class OfficialRow(BaseModel):
    """Base of the models of one row, as its authors publish it. Fields that a model does not name are allowed."""

    id: str
    answerable: bool
    """False for a row that is not asked, but whose paragraphs are in the pool."""


RowT = TypeVar("RowT", bound=OfficialRow)


def read_rows(path: Path, model: type[RowT]) -> Iterator[tuple[int, RowT]]:
    """Validated rows of an installed file with their 1-based line numbers.

    Raises:
        DataInvalid: a row is not what the format promises; names file, line and field.
    """
    for number, row in read(path):
        yield number, check(model, row, f"{path}, line {number}")


def check(model: type[RowT], row: Any, where: str) -> RowT:
    """`row` as a `model`.

    Raises:
        DataInvalid: the first thing wrong with it: `where`, the field and its value, shortened.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        raise DataInvalid(f"{where}: {field} is missing")
    if not isinstance(row, dict):
        raise DataInvalid(f"{where}: {short(row)} is not a JSON object; give JSON Lines, one object a line")
    raise DataInvalid(f"{where}: {field}={short(first['input'])}: {message}" if field else f"{where}: {message}")


def encode(row: Any, where: str) -> bytes:
    """One line. The layout is that of the official files, so that added and downloaded sets are the same bytes.

    Raises:
        DataInvalid: a string holds half of a surrogate pair.
    """
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 30) : error.end + 10]
        raise DataInvalid(f"{where}: {around!r} holds half of a surrogate pair, which is no character") from None


def read(path: Path, progress: bool = False) -> Iterator[tuple[int, Any]]:
    """Parsed lines of a JSON Lines file, gzip or not, with their 1-based numbers; blank lines are passed over.

    Args:
        path: The file.
        progress: Show a bar while a large file is read, where stderr is a terminal.

    Raises:
        DataInvalid: not JSON, not UTF-8, or cut off; names file and line.
        ConfigurationError: the file cannot be opened.
    """
    for number, line in lines(path, progress):
        if line.strip():
            yield number, parse(line, f"{path}, line {number}")


def parse(line: bytes, where: str) -> Any:
    """One line as JSON.

    Raises:
        DataInvalid: not JSON, not UTF-8, or cut off.
    """
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode()
        return json.loads(text)
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 4]
        raise DataInvalid(f"{where}: not UTF-8 ({bad!r} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        cut = "" if line.endswith(b"\n") else "; the file ends within this row: is it whole?"
        raise DataInvalid(f"{where}: {short(text)} is not JSON: {reason}{cut}") from None


def lines(path: Path, progress: bool = False) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, gzip or not, with their 1-based numbers. Arguments and errors as `read`, but for JSON."""
    number = 0
    try:
        with ExitStack() as cleanup:
            file = cleanup.enter_context(path.open("rb"))
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            size = path.stat().st_size
            stream: IO[bytes] = file
            if progress and size >= _PROGRESS_FROM and sys.stderr.isatty():
                bar = wrap_file(file, size, description=path.name, console=Console(stderr=True), transient=True)
                stream = cleanup.enter_context(bar)
            if packed:
                stream = io.BufferedReader(gzip.GzipFile(fileobj=stream))
            for number, line in enumerate(stream, 1):
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataInvalid(f"{path}, after line {number}: the gzip data is cut off or damaged ({error})") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None


def short(value: Any, form: Callable[[Any], str] = repr) -> str:
    """`value` in at most 80 characters, for a message."""
    text = form(value)
    return text if len(text) <= 80 else text[:77] + "…"
