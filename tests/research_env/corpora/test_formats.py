"""Corpora from files: formats, bad rows, duplicates, damage."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from research_env.corpora.reader import open_file
from research_env.errors import DataInvalid
from research_env.types import Passage


def corpus(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def passages(address: str, skip_bad: bool = False) -> list[Passage]:
    return list(open_file(Path(address), skip_bad))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "0", "contents": '"The Story"\nThe film deals.'}, Passage("0", "The Story", "The film deals.")),
        ({"id": 7, "contents": '""Heroes" (album)"\nBowie\n1977'}, Passage("7", '"Heroes" (album)', "Bowie\n1977")),
        ({"id": "0", "contents": "no title"}, Passage("0", "no title", "")),
        ({"id": "a", "title": "T", "text": "x", "more": 1}, Passage("a", "T", "x")),
        ({"_id": "a", "text": "x"}, Passage("a", "", "x")),
        ({"id": "12", "title": "Anarchism", "text": ["One. ", " Two."]}, Passage("12", "Anarchism", "One. Two.")),
        ({"id": "12", "title": "A", "text": [["One.", " Two."], [" Three."]]}, Passage("12", "A", "One. Two. Three.")),
    ],
)
def test_formats(tmp_path: Path, row: dict[str, Any], expected: Passage) -> None:
    assert passages(corpus(tmp_path / "c.jsonl", [row])) == [expected]


def test_gzip_and_the_name(tmp_path: Path) -> None:
    path = tmp_path / "wiki-18.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "0", "contents": "\\"T\\"\\nx"}\n\n'))
    reader = open_file(path)
    assert list(reader) == [Passage("0", "T", "x")]
    assert reader.name == "wiki-18"


def test_questions_are_corpora_of_their_paragraphs(tmp_path: Path) -> None:
    """HotpotQA's and 2WikiMultiHopQA's files are arrays, MuSiQue's are lines; what questions share comes once."""
    shared = ["Amber Kesh", ["A novel.", " By Bram Tovik."]]
    questions = [
        {"_id": "a", "question": "Who?", "context": [shared, ["Bram Tovik", ["A writer.", "Born in Oslo."]]]},
        {"_id": "b", "question": "Where?", "context": [shared]},
    ]
    (tmp_path / "hotpot.json").write_text(json.dumps(questions, indent=1))
    found = passages(str(tmp_path / "hotpot.json"))
    assert [(p.title, p.text) for p in found] == [
        ("Amber Kesh", "A novel. By Bram Tovik."),
        ("Bram Tovik", "A writer. Born in Oslo."),
    ]
    row = {"id": "c", "paragraphs": [{"idx": 0, "title": p.title, "paragraph_text": p.text} for p in found]}
    assert passages(corpus(tmp_path / "musique.jsonl", [row, row])) == found

    questions[1]["context"] = [["no sentences", "x"]]
    (tmp_path / "bad.json").write_text(json.dumps(questions))
    with pytest.raises(DataInvalid, match=r"bad.json, row 2: \['no sentences', 'x'\] is not a paragraph"):
        passages(str(tmp_path / "bad.json"))
    (tmp_path / "cut.json").write_text(json.dumps(questions)[:-5])
    with pytest.raises(DataInvalid, match=r"cut.json: .* is not JSON"):
        passages(str(tmp_path / "cut.json"))


@pytest.mark.parametrize(
    ("file", "expected"),
    [("hotpotqa/hotpot_dev_distractor.json", 1_434), ("2wikimultihopqa/dev.json", 958)],
)
def test_real_questions_as_corpora(real_data: Path, file: str, expected: int) -> None:
    found = passages(str(real_data / file))
    assert len(found) == len({(p.title, p.text) for p in found}) == expected


def test_hotpotqas_dump(tmp_path: Path) -> None:
    path = tmp_path / "enwiki-abstracts.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for name, ids in {"AA/wiki_00.bz2": (12, 25), "AB/wiki_01.bz2": (39,)}.items():
            rows = [{"id": str(i), "url": "u", "title": f"T{i}", "text": ["One.", f" {i}."]} for i in ids]
            data = bz2.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
            member = tarfile.TarInfo(f"enwiki/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert passages(str(path)) == [Passage(str(i), f"T{i}", f"One. {i}.") for i in (12, 25, 39)]
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    with pytest.raises(DataInvalid, match="cut off or damaged"):
        passages(str(path))
    plain = tmp_path / "enwiki-abstracts.tar"
    plain.write_bytes(bz2.decompress(whole))
    assert len(passages(str(plain))) == 3
    plain.write_bytes(bz2.decompress(whole)[:1024])  # between two members
    with pytest.raises(DataInvalid, match="does not end as an archive does"):
        passages(str(plain))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ({"title": "T", "text": "x"}, "id=None"),
        ({"id": "", "text": "x"}, "id=''"),
        ({"id": True, "text": "x"}, "id=True"),
        ({"id": "a", "title": "T"}, "text is missing"),
        ({"id": "a", "title": 3, "text": "x"}, "title=3 is not a string"),
        ({"id": "a", "text": [1]}, "text is missing"),
        ({"id": "a", "contents": None}, "contents=None is not a string"),
        ('{"id": "a", "text": "\\ud800"}', "surrogate pair"),
        ({"id": "0", "text": "again"}, "id '0' was there before"),
        ({"id": "x", "text": "again"}, "id 'x' was there before"),
    ],
)
def test_a_bad_row_is_named_by_line_and_passed_over_only_when_asked(tmp_path: Path, row: Any, said: str) -> None:
    good = [{"id": "0", "text": "a"}, {"id": "x", "text": "b"}]
    address = corpus(tmp_path / "c.jsonl", [*good, row, {"id": "1", "text": "c"}])
    with pytest.raises(DataInvalid) as caught:
        passages(address)
    assert said in str(caught.value)
    assert f"{address}, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)
    reader = open_file(Path(address), skip_bad=True)
    assert [p.id for p in reader] == ["0", "x", "1"]
    assert reader.skipped == 1


def test_ids_that_look_alike_are_not_the_same(tmp_path: Path) -> None:
    rows = [{"id": i, "text": "x"} for i in ("0", "1", "01", "+1", "1 ", "٠", "3", "2")]
    assert len(passages(corpus(tmp_path / "c.jsonl", rows))) == len(rows)


@pytest.mark.parametrize(
    "ids",
    [
        ["1", "0", "1"],
        ["2", "0", "1", "2"],
        ["5", "6", "9", "10", "6"],
        ["5", "6", "9", "10", "9"],
        ["7", "8", "3", "3"],
    ],
)
def test_an_id_that_comes_back_is_found(tmp_path: Path, ids: list[str]) -> None:
    with pytest.raises(DataInvalid, match=f"line {len(ids)}: id '{ids[-1]}' was there before"):
        passages(corpus(tmp_path / "c.jsonl", [{"id": i, "text": "x"} for i in ids]))


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_damaged_archive(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "c.jsonl.gz"
    lines = "".join(json.dumps({"id": str(i), "text": f"text {i}"}) + "\n" for i in range(1_000))
    path.write_bytes(gzip.compress(lines.encode())[:-cut])
    with pytest.raises(DataInvalid, match="gzip data is cut off or damaged"):
        passages(str(path))


def test_a_file_cut_off_in_a_row(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "0", "text": "a"}\n{"id": "1", "te')
    with pytest.raises(DataInvalid, match=r"line 2: .*ends within this row: is it whole\?"):
        passages(str(path))
