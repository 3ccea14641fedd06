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
from research_env.text import passage_id
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
        ({"id": "0", "contents": "Just text."}, Passage("0", "", "Just text.")),
        ({"id": "0", "contents": "A first sentence.\nA second."}, Passage("0", "", "A first sentence.\nA second.")),
        ({"id": "0", "contents": f"{'long ' * 30}\nx"}, Passage("0", "", f"{'long ' * 30}\nx")),
        ({"id": "0", "contents": "Amber Kesh\nA novel."}, Passage("0", "Amber Kesh", "A novel.")),
        ({"id": "0", "contents": '"Amber Kesh"\r\nA novel.'}, Passage("0", "Amber Kesh", "A novel.")),
        ({"id": "0", "title": "T", "contents": "Only text."}, Passage("0", "T", "Only text.")),
        ({"id": "0", "title": "T", "contents": "Another\nx"}, Passage("0", "T", "Another\nx")),
        ({"id": "0", "title": "T", "contents": '"T"\nx'}, Passage("0", "T", "x")),
        ({"id": "0", "title": "A & B", "contents": '"A &amp; B"\nx'}, Passage("0", "A & B", "x")),
        ({"title": '"T"', "id": "0", "contents": '"T"\nx'}, Passage("0", "T", "x")),
        ({"id": "0", "title": "T", "contents": "T\nx in small letters"}, Passage("0", "T", "x in small letters")),
        ({"id": "0", "title": '"H"', "contents": '""H""\nx'}, Passage("0", '"H"', "x")),
        ({"id": "0", "title": '"H"', "text": "x"}, Passage("0", '"H"', "x")),
        ({"id": "0", "contents": "&quot;Heroes&quot;\nsong by B."}, Passage("0", '"Heroes"', "song by B.")),
        ({"id": "0", "contents": "Heroes &amp;\nA song."}, Passage("0", "Heroes &", "A song.")),
        ({"id": "0", "contents": "A novel by\nthe author."}, Passage("0", "", "A novel by\nthe author.")),
        ({"id": "0", "contents": "eBay\neBay sells."}, Passage("0", "eBay", "eBay sells.")),
        ({"id": "0", "contents": 'He said "Go."\nThen he left.'}, Passage("0", "", 'He said "Go."\nThen he left.')),
        ({"id": "0", "title": None, "contents": '"T"\nx'}, Passage("0", "T", "x")),
        ({"id": "0", "title": None, "text": "x"}, Passage("0", "", "x")),
        ({"docid": 7, "title": "T", "text": "x"}, Passage("7", "T", "x")),
        ({"_id": "a", "title": "T", "content": "x"}, Passage("a", "T", "x")),
        ({"doc_id": "a", "body": "x"}, Passage("a", "", "x")),
        ({"pid": "p1", "docid": "d1", "passage": "x"}, Passage("p1", "", "x")),
        ({"id": None, "passage_id": 0, "text": "x"}, Passage("0", "", "x")),
        ({"id": "0", "text": "", "contents": '"T"\nx'}, Passage("0", "T", "x")),
        # The first 16 digits of the sha256 of "T\nx".
        ({"title": "T", "contents": "x"}, Passage("f88a6430b8d9124a", "T", "x")),
        ({"id": "a", "title": "T", "text": "x", "more": 1}, Passage("a", "T", "x")),
        ({"_id": "a", "text": "x"}, Passage("a", "", "x")),
        ({"id": "12", "title": "Anarchism", "text": ["One. ", " Two."]}, Passage("12", "Anarchism", "One. Two.")),
        ({"id": "12", "title": "A", "text": [["One.", " Two."], [" Three."]]}, Passage("12", "A", "One. Two. Three.")),
    ],
)
def test_formats(tmp_path: Path, row: dict[str, Any], expected: Passage) -> None:
    assert passages(corpus(tmp_path / "c.jsonl", [row])) == [expected]


@pytest.mark.parametrize("name", ["c.json", "c.jsonl", "c.jsonl.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\ufeff\n \n"])
@pytest.mark.parametrize("array", [False, True])
def test_arrays_and_lines_as_other_programs_write_them(
    tmp_path: Path, name: str, end: str, before: str, array: bool
) -> None:
    """A byte order mark, blank lines, line ends of Windows, and names that do not tell what is inside."""
    rows = [json.dumps({"id": str(i), "title": "T", "text": f"x{i}"}) for i in range(3)]
    text = f"[{end}{f',{end}'.join(rows)}{end}]{end}" if array else f"{end}{end}".join(rows)
    (tmp_path / name).write_bytes((before + text).encode())
    assert passages(str(tmp_path / name)) == [Passage(str(i), "T", f"x{i}") for i in range(3)]


def test_the_same_passage_without_an_id_comes_once(tmp_path: Path) -> None:
    rows = [{"title": "T", "contents": "x"}, {"title": "U", "contents": "x"}, {"title": "T", "contents": "x"}]
    assert [p.title for p in passages(corpus(tmp_path / "c.jsonl", rows))] == ["T", "U"]


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        ("Steers &amp; Stripes", "Steers & Stripes"),
        ("I&quot;s", 'I"s'),
        ("Ren&#233;e &#x41;", "Renée A"),
        ("&amp;lt; (entity)", "&lt; (entity)"),
        ("AT&T", "AT&T"),
        ("R&Dagger", "R&Dagger"),
        ("A &nosuch; B", "A &nosuch; B"),
        ("A&#10;B &#x2028;C", "A B C"),
    ],
)
def test_entities_of_titles_are_read_once(tmp_path: Path, title: str, plain: str) -> None:
    """In titles alone: the text may be about entities. In every format, and the ids are made from what was read."""
    rows = [{"id": "0", "contents": f'"{title}"\n&amp;'}, {"id": "1", "title": title, "text": "&amp;"}]
    question = {"_id": "q", "question": "?", "context": [[title, ["&amp;"]]]}
    found = passages(corpus(tmp_path / "c.jsonl", [*rows, question]))
    assert [(p.title, p.text) for p in found] == [(plain, "&amp;")] * 3
    assert found[2].id == passage_id(plain, "&amp;")


def test_entities_of_real_titles(real_data: Path) -> None:
    found = [p.title for p in passages(str(real_data / "corpus" / "wiki_pool.jsonl.gz"))]
    assert "Steers & Stripes" in found
    assert [title for title in found if "&amp;" in title or "&quot;" in title] == []


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
        ({"id": "", "text": "x"}, "id=''"),
        ({"docid": 1.5, "text": "x"}, "docid=1.5"),
        ({"id": True, "text": "x"}, "id=True"),
        ({"id": "a", "title": "T"}, "no text in a row of id, title; give the text as text or contents or content or"),
        ({"doc": "a", "abstract": "T"}, "in a row of doc, abstract; give"),
        ({}, "in a row of no fields"),
        ({"id": "a", "title": 3, "text": "x"}, "title=3 is not a string"),
        ({"id": "a", "text": [1]}, "text=[1] is not a string"),
        ({"id": "a", "contents": None}, "no text in a row of id, contents"),
        ('{"id": "a", "text": "\\ud800"}', "surrogate pair"),
        ('{"id": "\\ud800", "text": "a"}', "surrogate pair"),
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
