"""Passages from files: the formats in which corpora are published, read as streams.

- wiki-18 and everything after it: `{"id": "0", "contents": "\\"The Official Story\\"\\nThe film deals with …"}`
- any JSON Lines of `{"id": …, "title": …, "text": …}` (`_id` for `id` as in BEIR; a text may be a list of sentences)
- HotpotQA's abstracts, `enwiki-….tar.bz2` as published: a tar of bzip2 files of such lines
"""

from __future__ import annotations

import bz2
import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_env.errors import ConfigurationError, DataInvalid
from research_env.questions import DATASETS, load
from research_env.questions.official import lines, parse, short
from research_env.retrieval import Passage


class ContentHash:
    """Hash of a set of passages whatever their order, so that an index can be compared with the file it came from."""

    def __init__(self) -> None:
        self.passages = 0
        self._sum = 0

    def add(self, passage: Passage) -> None:
        """Add a passage: 128 bits of each, summed."""
        content = "\0".join((passage.id, passage.title, passage.text)).encode("utf-8", "surrogatepass")
        self._sum += int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "big")
        self.passages += 1

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._sum % (1 << 128):032x}"


@dataclass
class CorpusReader:
    """A pass over a corpus; iterate once. Counts and hashes what it hands out."""

    name: str
    source: Callable[[], Iterable[tuple[str, Any]]]
    """-> `(where, row or DataInvalid)`."""
    skip_bad: bool = False
    """Pass over bad rows and count them, where otherwise the first one is an error."""
    total: int | None = None
    """Number of passages, where it is known beforehand."""
    skipped: int = 0
    content: ContentHash = field(default_factory=ContentHash)

    def __iter__(self) -> Iterator[Passage]:
        """Passages in their order.

        Raises:
            DataInvalid: a row is none, or an id comes a second time; names file and line.
        """
        seen: set[int] = set()
        following = 0
        for where, row in self.source():
            try:
                if isinstance(row, DataInvalid):
                    raise row
                passage = row if isinstance(row, Passage) else to_passage(row, where)
                # Ids that count up, as wiki-18's 21 million do, need no memory; others take 8 bytes each and more.
                if passage.id == str(following):
                    following += 1
                else:
                    key = int.from_bytes(hashlib.blake2b(passage.id.encode(), digest_size=8).digest(), "big")
                    if key in seen or (
                        passage.id.isdecimal() and passage.id == str(int(passage.id)) and int(passage.id) < following
                    ):
                        raise DataInvalid(f"{where}: id {passage.id!r} was there before; ids must be unique")
                    seen.add(key)
            except DataInvalid:
                if not self.skip_bad:
                    raise
                self.skipped += 1
                continue
            self.content.add(passage)
            yield passage


def open_corpus(address: str, skip_bad: bool = False) -> CorpusReader:
    """The corpus at a path, or the pool of a data set by its name.

    Raises:
        ConfigurationError: neither a file nor a data set.
    """
    path = Path(address)
    if path.is_file():
        name = path.name.split(".")[0]
        source = _hotpot_dump if path.name.endswith((".tar.bz2", ".tar")) else _json_lines
        return CorpusReader(name, lambda: source(path), skip_bad)
    if address in DATASETS:
        pool = load(address)
        return CorpusReader(pool.name, lambda: (("", p) for p in pool.passages()), skip_bad, pool.num_passages)
    raise ConfigurationError(
        f"corpus {address!r} is no file, and no data set either; known data sets: {', '.join(DATASETS)}"
    )


def to_passage(row: Any, where: str) -> Passage:
    """A row of any of the formats as a passage.

    Raises:
        DataInvalid: it is of none of them; names the field.
    """
    if not isinstance(row, dict):
        raise DataInvalid(f"{where}: {short(row)} is not a JSON object; give JSON Lines, one object a line")
    ident = row.get("id", row.get("_id"))
    if isinstance(ident, int) and not isinstance(ident, bool):
        ident = str(ident)
    if not isinstance(ident, str) or not ident:
        raise DataInvalid(f"{where}: id={short(ident)}: give a string that is not empty, or a whole number")
    if "contents" in row and "text" not in row:
        contents = row["contents"]
        if not isinstance(contents, str):
            raise DataInvalid(f"{where}: contents={short(contents)} is not a string")
        title, text = split_contents(contents)
    else:
        title, text = _title_and_text(row, where)
    try:
        f"{ident}{title}{text}".encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 30) : error.end + 10]
        raise DataInvalid(f"{where}: {around!r} holds half of a surrogate pair, which is no character") from None
    return Passage(ident, title, text)


def _title_and_text(row: dict[str, Any], where: str) -> tuple[str, str]:
    text = row.get("text")
    fields = {"title": row.get("title", ""), "text": _joined(text) if isinstance(text, list) else text}
    for name, value in fields.items():
        if value is None:
            raise DataInvalid(f"{where}: {name} is missing; give id, title and text, or id and contents")
        if not isinstance(value, str):
            raise DataInvalid(f"{where}: {name}={short(value)} is not a string")
    return fields["title"], fields["text"]


def split_contents(contents: str) -> tuple[str, str]:
    """`(title, text)` of a passage in wiki-18's form: the title in quotes, a line end, the text."""
    title, _, text = contents.partition("\n")
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def _joined(parts: list[Any]) -> str | None:
    """Sentences, or paragraphs of sentences, as one text; None where there is anything else among them."""
    flat = [s for part in parts for s in (part if isinstance(part, list) else [part])]
    return "".join(flat).strip() if all(isinstance(s, str) for s in flat) else None


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in lines(path, progress=True):
        where = f"{path}, line {number}"
        if line.strip():
            yield where, _parsed(line, where)


def _hotpot_dump(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                data = file.read()
                if member.name.endswith(".bz2"):
                    data = bz2.decompress(data)
                for number, line in enumerate(data.split(b"\n"), 1):
                    if line.strip():
                        where = f"{path}, {member.name}, line {number}"
                        yield where, _parsed(line, where)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataInvalid(f"{path}: the archive is cut off or damaged ({error})") from None
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def _parsed(line: bytes, where: str) -> Any:
    try:
        return parse(line, where)
    except DataInvalid as error:
        return error
