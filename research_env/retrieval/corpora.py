"""Passages from files: the formats in which corpora are published, read as streams.

- wiki-18 and everything after it: `{"id": "0", "contents": "\\"The Official Story\\"\\nThe film deals with …"}`
- any JSON Lines of `{"id": …, "title": …, "text": …}` (`_id` for `id` as in BEIR; a text may be a list of sentences)
- HotpotQA's abstracts, `enwiki-….tar.bz2` as published: a tar of bzip2 files of such lines
- questions as HotpotQA, 2WikiMultiHopQA (a JSON array, `context`) and MuSiQue (JSON Lines, `paragraphs`) publish them:
  the paragraphs of all of them, each once
"""

from __future__ import annotations

import bz2
import hashlib
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_env.errors import ConfigurationError, DataInvalid
from research_env.plugins import load
from research_env.questions import DATASETS
from research_env.questions.musique import passage_id
from research_env.questions.official import lines, parse, short
from research_env.retrieval import Corpus, Passage


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


class _Ids:
    """Ids that were there. Numbers that count up, as wiki-18's 21 million do, are kept as ranges and need no memory."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._others: set[bytes] = set()

    def add(self, ident: str) -> bool:
        """Remember an id; False where it was there before."""
        if ident.isascii() and ident.isdecimal() and len(ident) < 19 and (ident[0] != "0" or ident == "0"):
            number = int(ident)
            last = self._ends[-1] if self._ends else -1
            if number >= last and not (self._others and self._digest(ident) in self._others):
                if number == last:
                    self._ends[-1] += 1
                    return True
                if len(self._starts) < 10_000:
                    self._starts.append(number)
                    self._ends.append(number + 1)
                    return True
            at = bisect_right(self._starts, number) - 1
            if at >= 0 and number < self._ends[at]:
                return False
        digest = self._digest(ident)
        if digest in self._others:
            return False
        self._others.add(digest)
        return True

    def _digest(self, ident: str) -> bytes:
        return hashlib.blake2b(ident.encode(), digest_size=8).digest()


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
            DataInvalid: a row is none, or an id comes a second time (names file and line); or there is no passage.
        """
        seen = _Ids()
        for where, row in self.source():
            try:
                if isinstance(row, DataInvalid):
                    raise row
                passage = row if isinstance(row, Passage) else to_passage(row, where)
                if not seen.add(passage.id):
                    raise DataInvalid(f"{where}: id {passage.id!r} was there before; ids must be unique")
            except DataInvalid:
                if not self.skip_bad:
                    raise
                self.skipped += 1
                continue
            self.content.add(passage)
            yield passage
        if not self.content.passages:
            raise DataInvalid(f"corpus {self.name} holds no passages")

    def corpus(self) -> Corpus:
        """What has been handed out so far."""
        return Corpus(self.name, self.content.passages, self.content.hexdigest())

    def read(self) -> Corpus:
        """Read to the end, and say what it was.

        Raises:
            DataInvalid: as iteration.
        """
        for _ in self:
            pass
        return self.corpus()


def open_corpus(address: str, skip_bad: bool = False) -> CorpusReader:
    """The corpus at a path, or the pool of a data set by its name.

    Raises:
        ConfigurationError: neither a file nor a data set.
    """
    path = Path(address)
    if path.is_file():
        name = path.name.split(".")[0]
        source = _hotpot_dump if path.name.endswith((".tar.bz2", ".tar")) else _json_file
        return CorpusReader(name, lambda: source(path), skip_bad)
    if address in DATASETS:
        pool = load(DATASETS, "dataset", address)()
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
        whole = row["contents"]
        if not isinstance(whole, str):
            raise DataInvalid(f"{where}: contents={short(whole)} is not a string")
        title, text = split_contents(whole)
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


def contents(passage: Passage) -> str:
    """A passage as one text, as wiki-18 and the E5 indexes made from it have it; `split_contents` undoes it."""
    return f'"{passage.title}"\n{passage.text}'


def split_contents(whole: str) -> tuple[str, str]:
    """`(title, text)` of a passage in wiki-18's form: the title in quotes, a line end, the text."""
    title, _, text = whole.partition("\n")
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def _joined(parts: list[Any]) -> str | None:
    """Sentences, or paragraphs of sentences, as one text; None where there is anything else among them."""
    flat = [s for part in parts for s in (part if isinstance(part, list) else [part])]
    return " ".join(s.strip() for s in flat).strip() if all(isinstance(s, str) for s in flat) else None


def _json_file(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a file of passages; of a file of questions, their paragraphs."""
    seen: set[str] = set()
    for where, row in _json_rows(path):
        paragraphs = row.get("context", row.get("paragraphs")) if isinstance(row, dict) else None
        if not isinstance(paragraphs, list) or "text" in row or "contents" in row:
            yield where, row
            continue
        for paragraph in paragraphs:
            try:
                passage = _from_paragraph(paragraph, where)
            except DataInvalid as error:
                yield where, error
                continue
            if passage.id not in seen:
                seen.add(passage.id)
                yield where, passage


def _from_paragraph(paragraph: Any, where: str) -> Passage:
    """`[title, sentences]` of HotpotQA and 2WikiMultiHopQA, `{"title", "paragraph_text"}` of MuSiQue."""
    title = text = None
    if isinstance(paragraph, list) and len(paragraph) == 2 and isinstance(paragraph[1], list):
        title, text = paragraph[0], _joined(paragraph[1])
    elif isinstance(paragraph, dict):
        title, text = paragraph.get("title"), paragraph.get("paragraph_text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise DataInvalid(f"{where}: {short(paragraph)} is no paragraph of HotpotQA, 2WikiMultiHopQA or MuSiQue")
    return to_passage({"id": passage_id(title, text), "title": title, "text": text}, where)


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of JSON Lines; of a `.json` file that is one array, its elements, read as a whole."""
    numbered = lines(path)
    for number, line in numbered:
        if number == 1 and ".jsonl" not in path.name and line.lstrip().startswith(b"["):
            whole = _parsed(line + b"".join(more for _, more in numbered), str(path))
            if isinstance(whole, DataInvalid):
                raise whole  # the file is broken, and not a row of it
            for place, row in enumerate(whole, 1):
                yield f"{path}, row {place}", row
        elif line.strip():
            yield (where := f"{path}, line {number}"), _parsed(line, where)


def _hotpot_dump(path: Path) -> Iterator[tuple[str, Any]]:
    opened = bz2.open if path.name.endswith(".bz2") else open
    try:
        # Read through bz2 itself, which tells a cut-off file from a whole one; tarfile takes a cut for the end.
        with opened(path, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
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
            while packed.read(1 << 20):
                pass
            if opened is open:
                packed.seek(-1024, 2)
                if packed.read().strip(b"\0"):
                    raise EOFError("it does not end as an archive does")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataInvalid(f"{path}: the archive is cut off or damaged ({error})") from None
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def _parsed(line: bytes, where: str) -> Any:
    try:
        return parse(line, where)
    except DataInvalid as error:
        return error
