"""Where data sets live on this machine, and how files get there.

A set is a folder `<home>/data/<name>` with one file `<split>.jsonl` for each split: the official rows, validated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from research_env import names
from research_env.errors import ConfigurationError, DataInvalid, DataMissing, ResearchError
from research_env.files import check_file, encode, home, replace, rows
from research_env.questions.base import OfficialRow, check, read_rows
from research_env.questions.catalogue import DATASETS, Registration, with_files
from research_env.text import short

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Installed:
    """One split of a data set on this machine."""

    name: str
    split: str
    path: Path
    questions: int
    unanswerable: int
    """Rows that are not questions of the set, although their paragraphs are in the pool."""


def find(name: str) -> dict[str, Path]:
    """Split -> file of a data set, in the order of `SPLITS`.

    Raises:
        DataMissing: no split is on this machine; the message holds the commands that bring one.
        ConfigurationError: the set is unknown.
    """
    hub = registration(name).hub
    folder = _folder(name)
    found = {split: path for split in SPLITS if (path := folder / f"{split}.jsonl").is_file()}
    if not found:
        download = f"`python -m research_env data download {name}` or, " if hub else ""
        raise DataMissing(
            f"the data set {name!r} is not in {folder}; get it with {download}from files you have, "
            f"`python -m research_env data add {name} FILE…`"
        )
    return found


def listing() -> list[Installed]:
    """Every split on this machine, its rows read and counted.

    Raises:
        DataInvalid: an installed file is damaged.
    """
    found = []
    for name in with_files():
        for split in SPLITS:
            path = _folder(name) / f"{split}.jsonl"
            if path.is_file():
                answerable = [row.answerable for _, row in read_rows(path, _model(name))]
                found.append(Installed(name, split, path, sum(answerable), len(answerable) - sum(answerable)))
    return found


def add(name: str, files: Sequence[str | Path], split: str | None = None) -> list[Installed]:
    """Install files in the official format: JSON Lines, gzip or not. All or nothing; a split it had is replaced.

    Args:
        name: Data set.
        files: Files of the same split are joined in the order given.
        split: Split of all `files`; None reads it from each file's name.

    Raises:
        DataInvalid: a row is not what the format promises; names file, line and field.
        ConfigurationError: the set is unknown, a file cannot be read, or its name does not tell its split.
        ResearchError: the data folder cannot be written.
    """
    registration(name)
    if split is not None and split not in SPLITS:
        raise ConfigurationError(f"split={split!r} is unknown; known: {', '.join(SPLITS)}")
    # First, because the name of a file that is not there need not tell a split.
    for file in files:
        check_file(Path(file))
    wanted = [(split or _split_of(Path(file)), Path(file)) for file in files]

    def numbered() -> Iterator[tuple[str, str, Any]]:
        for into, file in wanted:
            number = 0
            for number, row in rows(file, progress=True):
                yield into, f"{file}, line {number}", row
            if not number:
                raise DataInvalid(f"{file} is empty: it has no rows")

    return install(name, numbered())


def fingerprint(files: Mapping[str, Path]) -> str:
    """sha256 over the bytes of a set's files. A file is read again only after it has changed.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    total = hashlib.sha256()
    for path in files.values():
        try:
            status = path.stat()
            # Size, time and inode stand for the content: `install` puts a new file in place, which changes one of them.
            total.update(_digest(path, status.st_size, status.st_mtime_ns, status.st_ino))
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    return total.hexdigest()


@lru_cache
def _digest(path: Path, *_version: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def passage_count(name: str, fingerprint: str, count: Callable[[], int]) -> int:
    """Number of passages in the pool of a set, kept beside its files, so that only the first process has to count.

    Args:
        name: Data set.
        fingerprint: That of its files; a number that was kept for other files is not used.
        count: Counts them, which takes a pass over every file.
    """
    kept = _folder(name) / ".passages.json"
    # The file may be absent, incomplete, or about other files: then the passages are counted again.
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(kept.read_bytes())
        if found["fingerprint"] == fingerprint:
            return int(found["passages"])
    passages = count()
    # This process may not be allowed to write into the data folder: then the number is right, but is not kept.
    with suppress(OSError):
        replace(kept, json.dumps({"fingerprint": fingerprint, "passages": passages}).encode())
    return passages


def registration(name: str) -> Registration:
    """The registration of a data set that lives in files.

    Raises:
        ConfigurationError: the set is unknown, or needs no files.
    """
    known = with_files()
    if name in known:
        return DATASETS[name]
    if name in DATASETS:
        raise ConfigurationError(f"{name!r} is generated: it needs no files; with files: {', '.join(known)}")
    hint = names.did_you_mean(name.lower(), known)
    raise ConfigurationError(f"data set {name!r} is unknown; known: {', '.join(known)}{hint}")


def _model(name: str) -> type[OfficialRow]:
    model: type[OfficialRow] = names.load({name: registration(name).row or ""}, "data set", name)
    return model


def _folder(name: str) -> Path:
    return home() / "data" / name


def _split_of(file: Path) -> str:
    # Whole words: "device" and "latest" must not be taken for dev and test.
    words = set(re.findall("[a-z]+", file.name.lower()))
    named = [split for split in SPLITS if split in words]
    if len(named) == 1:
        return named[0]
    said = " and ".join(named) if named else f"none of {', '.join(SPLITS)}"
    raise ConfigurationError(f"{file}: its name says {said}, so its split is unknown; give it with --split")


def install(name: str, numbered: Iterable[tuple[str, str, Any]]) -> list[Installed]:
    """Validate and write rows; nothing is in place until everything has been written.

    Args:
        name: Data set.
        numbered: `(split, where the row stands, row)`.

    Raises:
        DataInvalid: a row is not what the format promises, or no row is answerable.
        ResearchError: the data folder cannot be written.
    """
    model = _model(name)
    folder = _folder(name)
    files: dict[str, IO[bytes]] = {}
    seen: dict[str, dict[str, str]] = {}
    totals: dict[str, int] = {}
    try:
        with ExitStack() as cleanup:
            folder.mkdir(parents=True, exist_ok=True)
            # Two installs at once would write into each other's partial files.
            cleanup.enter_context(FileLock(folder / ".lock"))
            for split, where, raw in numbered:
                row = check(model, raw, where)
                if split not in files:
                    partial = folder / f".{split}.jsonl.tmp"
                    cleanup.callback(partial.unlink, missing_ok=True)
                    files[split] = cleanup.enter_context(partial.open("wb"))
                    seen[split], totals[split] = {}, 0
                # Only answerable rows must have an id of their own: MuSiQue-Full has each question twice under one id,
                # as it is, and with a paragraph that it needs taken out.
                if row.answerable and (before := seen[split].setdefault(row.id, where)) is not where:
                    raise DataInvalid(f"{where}: id={short(row.id)} is taken by {before}")
                totals[split] += 1
                files[split].write(encode(raw, where))
            if not files:
                raise DataInvalid(f"{name}: there are no rows")
            for split, file in files.items():
                if not seen[split]:
                    raise DataInvalid(f"{split}: none of its {totals[split]} rows is answerable")
                file.close()
            # Last of all, when every row of every split has passed: an earlier failure leaves the old files alone.
            for split in files:
                os.replace(folder / f".{split}.jsonl.tmp", folder / f"{split}.jsonl")
    except ResearchError:
        raise
    except OSError as error:
        raise ResearchError(
            f"{folder} cannot be written ({error}); make room there, or set RESEARCH_HOME to another folder"
        ) from error
    return [
        Installed(name, split, folder / f"{split}.jsonl", len(seen[split]), totals[split] - len(seen[split]))
        for split in SPLITS
        if split in files
    ]
