"""The formats in which corpora are published: a file -> rows, a row -> a passage.

- wiki-18 and everything after it: `{"id": "0", "contents": "\\"The Official Story\\"\\nThe film deals with …"}`
- any JSON Lines, or one JSON array, of `{"id": …, "title": …, "text": …}`, also under the names in `IDS` and `TEXTS`
  (`_id` in BEIR, `docid` in Tevatron and Pyserini, `pid` and `passage` in MS MARCO). A text may be a list of sentences;
  the title may be missing. A row without an id is known by the hash of its content, so the same passage comes once
- HotpotQA's abstracts, `enwiki-….tar.bz2` as published: a tar of bzip2 files of such lines
- questions as HotpotQA, 2WikiMultiHopQA (a JSON array, `context`) and MuSiQue (JSON Lines, `paragraphs`) publish them:
  the paragraphs of all of them, each once
"""

from __future__ import annotations

import bz2
import tarfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from research_env.errors import DataInvalid
from research_env.files import half_a_pair, lines, parse
from research_env.text import passage_id, plain_title, short
from research_env.types import Passage

IDS = ("id", "_id", "pid", "passage_id", "docid", "doc_id")
"""Names of the field with the id. A row may hold the id of its document, too, so a passage's own comes first."""
TEXTS = ("text", "contents", "content", "passage", "body")
"""Names of the field with the text. `contents` and `content` may begin with the title, in a line of its own."""
_TITLE = 120  # characters; a longer first line is a paragraph
_CLOSING = "\"'”’»)]"
_SENTENCE_ENDS = (".", "!", "?", ";", ":", ",", "。", "！", "？", "।")


def read(path: Path) -> Iterator[tuple[str, Any]]:
    """`(where, row)` of a file of any of the formats; a row that cannot be parsed is a `DataInvalid` in its place."""
    return _dump(path) if path.name.endswith((".tar.bz2", ".tar")) else _json_file(path)


def to_passage(row: Any, where: str) -> Passage:
    """A row of any of the formats as a passage.

    Raises:
        DataInvalid: the row fits no format; names the field.
    """
    if not isinstance(row, dict):
        raise DataInvalid(f"{where}: {short(row)} is not a JSON object; give JSON Lines, one object a line")
    title, text = _title_and_text(row, where)
    name = next((name for name in IDS if row.get(name) is not None), None)
    ident = passage_id(title, text) if name is None else row[name]
    # True is an int to Python, but it is not an id.
    if isinstance(ident, int) and not isinstance(ident, bool):
        ident = str(ident)
    if not isinstance(ident, str) or not ident:
        raise DataInvalid(f"{where}: {name}={short(ident)}: give a string that is not empty, or a whole number")
    _check_whole(ident, where)
    return Passage(ident, title, text)


def contents(passage: Passage) -> str:
    """A passage as one text, as wiki-18 and the E5 indexes made from it have it; `split_contents` undoes it."""
    return f'"{passage.title}"\n{passage.text}'


def split_contents(whole: str) -> tuple[str, str]:
    """`(title, text)` of a passage in wiki-18's form: the title in quotes, a line end, the text.

    The quotes may be missing, as long as the first line reads like a title: short, and not a sentence or a part of one.
    Without a title, all of it is the text.
    """
    title, line_end, text = whole.partition("\n")
    title = title.removesuffix("\r")
    if line_end and (_quoted(title) or _like_a_title(plain_title(title), text)):
        return _unquoted(title), text
    return "", whole


def _quoted(line: str) -> bool:
    return len(line) > 1 and line[0] == line[-1] == '"'


def _unquoted(line: str) -> str:
    # Only the outer quotes go: the title of the album "Heroes" is `""Heroes" (album)"`.
    return line[1:-1] if _quoted(line) else line


def _spellings(title: str) -> set[str]:
    """A title with its outer quotes and without."""
    return {plain_title(title), plain_title(_unquoted(title))}


def _like_a_title(line: str, text: str) -> bool:
    if len(line) >= _TITLE:
        return False
    if _quoted(line):
        return True
    # A sentence goes on in small letters; an article on eBay begins with its title.
    goes_on = text[:1].islower() and not text.startswith(line)
    return not goes_on and not line.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


def _title_and_text(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Raises DataInvalid where there is no text, or something is not a string or holds half of a surrogate pair."""
    there = [name for name in TEXTS if row.get(name) is not None]
    name = next((name for name in there if row[name]), there[0] if there else "")
    if not name:
        raise DataInvalid(
            f"{where}: no text in a row of {short(', '.join(row) or 'no fields', str)}; give the text as "
            f"{' or '.join(TEXTS)}, and beside it an id ({', '.join(IDS)}) and a title where there are any"
        )
    title, text = row.get("title"), row[name]
    if isinstance(text, list):
        text = _joined(text)
    for field, value in (("title", "" if title is None else title), (name, text)):
        if not isinstance(value, str):
            raise DataInvalid(f"{where}: {field}={short(row[field])} is not a string")
    if name in ("contents", "content"):
        line, line_end, rest = text.partition("\n")
        same = _spellings(line.removesuffix("\r")) & _spellings(title or "")
        if not title:
            title, text = split_contents(text)
        # Beside a field `title`, the first line is text unless it says the same, in quotes or without.
        elif line_end and same:
            title, text = min(same, key=len), rest
    title = plain_title(title or "")
    _check_whole(title + text, where)
    return title, text


def _check_whole(text: str, where: str) -> None:
    """Raises DataInvalid for half of a surrogate pair: JSON can hold one, but neither an index nor a server can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataInvalid(f"{where}: {half_a_pair(error)}") from None


def _joined(parts: list[Any]) -> str | None:
    """Sentences, or paragraphs of sentences, as one text; None where something else is among them."""
    flat = [s for part in parts for s in (part if isinstance(part, list) else [part])]
    return " ".join(s.strip() for s in flat).strip() if all(isinstance(s, str) for s in flat) else None


def _json_file(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a file of passages; of a file of questions, their paragraphs, which questions share."""
    for where, row in _json_rows(path):
        paragraphs = row.get("context", row.get("paragraphs")) if isinstance(row, dict) else None
        # A passage may have a field `context` of its own, but a question has no text.
        if not isinstance(paragraphs, list) or any(name in row for name in TEXTS):
            yield where, row
            continue
        for paragraph in paragraphs:
            yield where, _from_paragraph(paragraph, where)


def _from_paragraph(paragraph: Any, where: str) -> Any:
    """`[title, sentences]` of HotpotQA and 2WikiMultiHopQA, `{"title", "paragraph_text"}` of MuSiQue."""
    title = text = None
    if isinstance(paragraph, list) and len(paragraph) == 2 and isinstance(paragraph[1], list):
        title, text = paragraph[0], _joined(paragraph[1])
    elif isinstance(paragraph, dict):
        title, text = paragraph.get("title"), paragraph.get("paragraph_text")
    if not isinstance(title, str) or not isinstance(text, str):
        return DataInvalid(f"{where}: {short(paragraph)} is not a paragraph of HotpotQA, 2WikiMultiHopQA or MuSiQue")
    return {"title": title, "text": text}


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of JSON Lines; of a file that is one array, its elements, read as a whole."""
    numbered = ((number, line.removeprefix(BOM_UTF8) if number == 1 else line) for number, line in lines(path))
    begun = False
    for number, line in numbered:
        if not begun and line.lstrip().startswith(b"["):
            whole = _parsed(line + b"".join(more for _, more in numbered), str(path))
            if isinstance(whole, DataInvalid):
                raise whole  # the whole file is broken, so `skip_bad` must not leave it out like one bad row
            for place, row in enumerate(whole, 1):
                yield f"{path}, row {place}", row
        elif line.strip():
            begun = True
            yield (where := f"{path}, line {number}"), _parsed(line, where)


def _dump(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of HotpotQA's abstracts: `enwiki-…/AA/wiki_00.bz2` and so on in one archive."""
    opened = bz2.open if path.name.endswith(".bz2") else open
    try:
        # Read through bz2 itself, which notices a file that is cut off; tarfile takes the cut for the end.
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
            # tarfile stops reading at the first mark of the end; what follows must be read for bz2 to check it.
            while packed.read(1 << 20):
                pass
            # Without compression nothing checks the end. A whole archive ends with 1,024 bytes of zeros.
            if opened is open:
                packed.seek(-1024, 2)
                if packed.read().strip(b"\0"):
                    raise EOFError("it does not end as an archive does")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataInvalid(f"{path}: the archive is cut off or damaged ({error})") from None
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def _parsed(line: bytes, where: str) -> Any:
    """A row, or the error that says why it is not one: the reader decides whether a bad row matters."""
    try:
        return parse(line, where)
    except DataInvalid as error:
        return error
