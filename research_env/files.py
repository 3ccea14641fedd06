"""Files: where this package keeps its own, JSON Lines with or without gzip, and replacing a file all at once."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import platformdirs
from rich.console import Console
from rich.progress import wrap_file

from research_env.errors import ConfigurationError, DataInvalid
from research_env.text import short

_PROGRESS_FROM = 20 << 20  # bytes; smaller files take less than a second


def home() -> Path:
    """Folder of everything this package keeps: `$RESEARCH_HOME`, or the user's data folder. It may not exist yet."""
    given = os.environ.get("RESEARCH_HOME")
    return Path(given).expanduser().absolute() if given else platformdirs.user_data_path("research-gym")


def check_file(path: Path) -> None:
    """Raises ConfigurationError where no file can be read at `path`, DataInvalid where the file is empty."""
    # Nothing is read here: what comes through a pipe can be read once only.
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ConfigurationError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: the name holds a zero byte
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} is a folder; name a file in it")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{path} cannot be read: this user may not read it")
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        raise DataInvalid(f"{path} is empty: it has no rows")


def lines(path: Path, progress: bool = False) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, gzip or not, with their 1-based numbers.

    Args:
        path: The file.
        progress: Show a bar while a large file is read, where stderr is a terminal.

    Raises:
        DataInvalid: the gzip data is cut off or damaged.
        ConfigurationError: the file cannot be opened.
    """
    number = 0
    try:
        with ExitStack() as cleanup:
            file = cleanup.enter_context(path.open("rb"))
            # By content and not by name, because downloaded files are often renamed.
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


def rows(path: Path, progress: bool = False) -> Iterator[tuple[int, Any]]:
    """Parsed lines of a JSON Lines file with their 1-based numbers; blank lines are left out. Arguments as `lines`.

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
        DataInvalid: not JSON, not UTF-8, or cut off; the message begins with `where`.
    """
    try:
        # Files that were written on Windows may begin with a byte-order mark, which JSON does not allow.
        text = line.removeprefix(codecs.BOM_UTF8).decode()
        return json.loads(text)
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 4]
        raise DataInvalid(f"{where}: not UTF-8 ({bad!r} at byte {error.start})") from None
    # Deep nesting ends in RecursionError, which is not a ValueError.
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        cut = "" if line.endswith(b"\n") else "; the file ends within this row: is it whole?"
        raise DataInvalid(f"{where}: {short(text)} is not JSON: {reason}{cut}") from None


def encode(row: Any, where: str) -> bytes:
    """`row` as one line of JSON. The layout is that of the official files, so added and downloaded sets are the same.

    Raises:
        DataInvalid: a string holds half of a surrogate pair.
    """
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DataInvalid(f"{where}: {half_a_pair(error)}") from None


def half_a_pair(error: UnicodeEncodeError) -> str:
    """What to say of text that UTF-8 cannot hold."""
    around = error.object[max(0, error.start - 30) : error.end + 10]
    return f"{around!r} holds half of a surrogate pair, which is not a character"


def replace(path: Path, content: bytes) -> None:
    """Write a file all at once: a reader sees the old content or the new, and never a part.

    Raises:
        OSError: the folder cannot be written.
    """
    # Named after the process, so that two processes never write into one another's file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
