"""The store: installed files are complete and valid, and every refusal says where and why."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research_env import files
from research_env.errors import ConfigurationError, DataInvalid, DataMissing, ResearchError
from research_env.questions import hub, musique, store


@pytest.fixture
def train(tmp_path, musique_rows, write):
    return write(tmp_path / "musique_train.jsonl", musique_rows["train"])


def test_home_is_the_variable_or_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RESEARCH_HOME", str(tmp_path / "here"))
    assert files.home() == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCH_HOME", "below")
    assert files.home() == tmp_path / "below"
    monkeypatch.setenv("RESEARCH_HOME", "~/kept")
    assert files.home() == Path.home() / "kept"
    for unset in (lambda: monkeypatch.setenv("RESEARCH_HOME", ""), lambda: monkeypatch.delenv("RESEARCH_HOME")):
        unset()
        assert files.home().name == "research-gym"


def test_missing_data_names_set_folder_and_both_commands(research_home):
    with pytest.raises(DataMissing) as caught:
        store.find("musique")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "'musique'",
        str(research_home / "data" / "musique"),
        "python -m research_env data add musique FILE…",
        "python -m research_env data download musique",
    ):
        assert part in message


@pytest.mark.parametrize("verb", [store.find, hub.download, lambda name: store.add(name, ["x"])])
def test_unknown_sets_are_named_with_the_closest(verb):
    with pytest.raises(ConfigurationError, match="'MuSiqe' is unknown; known: musique; did you mean 'musique'"):
        verb("MuSiqe")
    with pytest.raises(ConfigurationError, match="generated: it needs no files"):
        verb("synthetic")


def test_add_installs_every_split(tmp_path, train, musique_rows, research_home, write, leftovers):
    dev = write(tmp_path / "musique_ans_v1.0_dev.jsonl", musique_rows["dev"])
    folder = research_home / "data" / "musique"
    expected = [
        store.Installed("musique", "train", folder / "train.jsonl", 12, 0),
        store.Installed("musique", "dev", folder / "dev.jsonl", 6, 0),
    ]
    assert store.add("musique", [dev, train]) == expected
    assert store.listing() == expected
    assert store.find("musique") == {"train": folder / "train.jsonl", "dev": folder / "dev.jsonl"}
    assert (folder / "dev.jsonl").read_bytes() == dev.read_bytes()
    assert leftovers(research_home) == ["dev.jsonl", "train.jsonl"]


def test_gzip_byte_order_mark_blank_lines_and_no_last_newline_are_accepted(tmp_path, train):
    text = "\ufeff" + train.read_text(encoding="utf-8").replace("\n", "\r\n\n").rstrip()
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    (installed,) = store.add("musique", [packed])
    assert installed.questions == 12
    assert installed.path.read_bytes() == train.read_bytes()


def test_unicode_that_looks_like_line_ends_stays_in_its_row(tmp_path, musique_rows, write):
    musique_rows["dev"][0]["paragraphs"][0]["paragraph_text"] = "a\u2028b\x85c\u0000d"
    store.add("musique", [write(tmp_path / "dev.jsonl", musique_rows["dev"])])
    assert next(iter(musique.load().pool.passages())).text == "a\u2028b\x85c\u0000d"


def test_fields_of_later_versions_are_kept(tmp_path, musique_rows, write):
    musique_rows["dev"][0]["extra"] = {"a": [1, None]}
    file = write(tmp_path / "dev.jsonl", musique_rows["dev"])
    (installed,) = store.add("musique", [file])
    assert installed.path.read_bytes() == file.read_bytes()


def test_adding_again_replaces_the_split_and_only_it(tmp_path, train, musique_rows, write):
    dev = write(tmp_path / "dev.jsonl", musique_rows["dev"])
    store.add("musique", [train, dev])
    store.add("musique", [write(tmp_path / "train.jsonl", musique_rows["train"][:2])])
    assert {part.split: part.questions for part in store.listing()} == {"train": 2, "dev": 6}
    installed = store.find("musique")["dev"]
    store.add("musique", [installed])
    assert installed.read_bytes() == dev.read_bytes(), "an installed file can be its own source"


def test_the_split_can_be_given_and_its_files_are_joined(tmp_path, musique_rows, write):
    parts = [write(tmp_path / f"part{i}.jsonl", musique_rows["train"][i * 6 : i * 6 + 6]) for i in range(2)]
    (installed,) = store.add("musique", parts, split="dev")
    assert (installed.split, installed.questions) == ("dev", 12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rows.jsonl", "none of train, dev, test"),
        ("latest_device_training.jsonl", "none of train, dev, test"),
        ("dev_test_singlehop.jsonl", "dev and test"),
    ],
)
def test_a_name_that_tells_no_split_needs_one(tmp_path, musique_rows, name, said, write):
    with pytest.raises(ConfigurationError, match=f"{said}.*--split"):
        store.add("musique", [write(tmp_path / name, musique_rows["dev"])])


def test_an_unknown_split_is_refused(train):
    with pytest.raises(ConfigurationError, match=r"split='\.\./x' is unknown; known: train, dev, test"):
        store.add("musique", [train], split="../x")


def bad_rows():
    """Name, edit of a good row, and what the message must say."""
    step = "question_decomposition"
    yield "missing field", lambda row: row.pop("question"), "question is missing"
    yield "wrong type", lambda row: row.update(answerable="yes"), "answerable='yes': give true or false"
    yield "number for text", lambda row: row.update(id=7), "id=7: give a text"
    yield "blank", lambda row: row.update(answer=" "), "answer=' ': is blank"
    yield "no paragraphs", lambda row: row.update(paragraphs=[]), "paragraphs="
    yield "no hops", lambda row: row.update({step: []}), f"{step}="
    yield "deep", lambda row: row["paragraphs"][3].pop("title"), "paragraphs[3].title is missing"
    yield "text for number", lambda row: row["paragraphs"][3].update(idx="3"), "paragraphs[3].idx='3': "
    yield "alias", lambda row: row.update(answer_aliases=["a", None]), "answer_aliases[1]=None: "
    yield (
        "no such paragraph",
        lambda row: row[step][1].update(paragraph_support_idx=99),
        f"{step}[1].paragraph_support_idx=99: no paragraph",
    )
    yield (
        "gold unknown",
        lambda row: row[step][0].update(paragraph_support_idx=None),
        f"{step}[0].paragraph_support_idx=None: no paragraph",
    )
    yield "half a surrogate pair", lambda row: row.update(question="\ud83d"), '"question": "\\ud83d"'
    yield "the same, unread", lambda row: row.update(extra="\ud83d"), "surrogate"


@pytest.mark.parametrize(("edit", "said"), [case[1:] for case in bad_rows()], ids=[case[0] for case in bad_rows()])
def test_a_bad_row_is_named_and_nothing_is_installed(
    tmp_path, train, musique_rows, research_home, edit, said, leftovers
):
    edit(musique_rows["dev"][4])
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(json.dumps(row) + "\n" for row in musique_rows["dev"]))
    with pytest.raises(DataInvalid) as caught:
        store.add("musique", [train, dev])
    assert str(caught.value).startswith(f"{dev}, line 5: ")
    assert said in str(caught.value)
    assert leftovers(research_home) == []


def test_the_wrong_value_is_shortened(tmp_path, musique_rows, write):
    musique_rows["dev"][0]["question"] = ["x" * 10_000]
    with pytest.raises(DataInvalid) as caught:
        store.add("musique", [write(tmp_path / "dev.jsonl", musique_rows["dev"])])
    assert "…" in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: it has no rows"),
        (b"\n \n", "is empty: it has no rows"),
        (b"id,question\n", "line 1: 'id,question\\n' is not JSON"),
        (b"[1, 2]\n", "line 1: [1, 2] is not a JSON object; give JSON Lines"),
        (b"null\n", "line 1: None is not a JSON object"),
        (b"\n\n\xff\xfe\n", "line 3: not UTF-8 (b'\\xff\\xfe\\n' at byte 0)"),
        (b'{"id": "caf\xe9"}\n', "line 1: not UTF-8"),
        (b"[" * 100_000, "line 1: '[[["),
        (b"1" * 5_000, "line 1: '111"),
        (b"\x1f\x8b\x08\x00junk", "gzip data is cut off or damaged"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xb5\xd3", "line 1: not UTF-8"),
    ],
)
def test_files_that_are_not_json_lines(tmp_path, research_home, content, said, leftovers):
    file = tmp_path / "dev.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataInvalid) as caught:
        store.add("musique", [file])
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert leftovers(research_home) == []


def test_truncated_files_say_so(tmp_path, train):
    whole = train.read_bytes()
    train.write_bytes(whole[:-100])
    with pytest.raises(DataInvalid, match=r"line 12: .*the file ends within this row: is it whole"):
        store.add("musique", [train])
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(whole)[:-200])
    with pytest.raises(DataInvalid, match=r"train\.jsonl\.gz, .*cut off"):
        store.add("musique", [packed])


def test_a_failed_add_leaves_what_was_there(train, tmp_path, research_home, leftovers):
    store.add("musique", [train])
    bad = tmp_path / "train.jsonl"
    bad.write_bytes(train.read_bytes() + b"{}\n")
    with pytest.raises(DataInvalid, match="line 13"):
        store.add("musique", [bad])
    assert store.find("musique")["train"].read_bytes() == train.read_bytes()
    assert leftovers(research_home) == ["train.jsonl"]


@pytest.mark.parametrize("name", ["absent", "absent/dev.jsonl"])
@pytest.mark.parametrize("split", [None, "dev"])
def test_a_file_that_is_not_there_is_named(tmp_path, research_home, name, split, leftovers):
    with pytest.raises(ConfigurationError, match=f"^there is no file {tmp_path / name}$"):
        store.add("musique", [tmp_path / name], split)
    assert leftovers(research_home) == []


def test_files_that_cannot_be_read_are_named_before_their_split(tmp_path, monkeypatch):
    (tmp_path / "rows").touch()
    with pytest.raises(DataInvalid, match="rows is empty: it has no rows"):
        store.add("musique", [tmp_path / "rows"])
    with pytest.raises(ConfigurationError, match=f"^{tmp_path} is a folder; name a file in it"):
        store.add("musique", [tmp_path])
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        store.add("musique", ["x" * 300])
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read everything
    (tmp_path / "rows").write_text("{}")
    with pytest.raises(ConfigurationError, match="rows cannot be read: this user may not read it"):
        store.add("musique", [tmp_path / "rows"])


def test_duplicate_ids_are_refused_within_a_split_only(tmp_path, musique_rows, write):
    rows = musique_rows["dev"]
    same = [write(tmp_path / f"{split}.jsonl", rows) for split in ("train", "dev")]
    assert len(store.add("musique", same)) == 2
    with pytest.raises(DataInvalid) as caught:
        store.add("musique", [write(tmp_path / "dev.jsonl", [*rows, rows[1]])])
    message = str(caught.value)
    assert "dev.jsonl, line 7: id='3hop__100' is taken by " in message
    assert message.endswith("dev.jsonl, line 2")


def test_unanswerable_rows_are_counted_and_cannot_be_all(tmp_path, musique_rows, write):
    rows = musique_rows["dev"]
    rows[0]["answerable"] = False
    (installed,) = store.add("musique", [write(tmp_path / "dev.jsonl", [*rows, {**rows[1], "answerable": False}])])
    assert (installed.questions, installed.unanswerable) == (5, 2)
    with pytest.raises(DataInvalid, match="none of its 1 rows is answerable"):
        store.add("musique", [write(tmp_path / "dev.jsonl", rows[:1])])


def test_a_home_that_cannot_be_written_is_named(tmp_path, train, monkeypatch):
    monkeypatch.setenv("RESEARCH_HOME", str(train))
    with pytest.raises(ResearchError, match=r"cannot be written .* RESEARCH_HOME"):
        store.add("musique", [train])


def test_a_full_disk_leaves_nothing_behind(train, research_home, monkeypatch, leftovers):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResearchError, match=r"No space left on device.*make room"):
        store.add("musique", [train])
    assert leftovers(research_home) == []


def test_a_killed_add_does_not_stand_in_the_way(train, research_home, leftovers):
    folder = research_home / "data" / "musique"
    folder.mkdir(parents=True)
    (folder / ".train.jsonl.tmp").write_bytes(b'{"half')
    with pytest.raises(DataMissing):
        store.find("musique")
    store.add("musique", [train])
    assert leftovers(research_home) == ["train.jsonl"]


def test_fingerprint_reads_a_file_once_until_it_changes(train, monkeypatch):
    store.add("musique", [train])
    found = store.find("musique")
    first = store.fingerprint(found)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert store.fingerprint(found) == first
    monkeypatch.undo()
    store.add("musique", [train])
    found["train"].write_bytes(found["train"].read_bytes() + b"\n")
    assert store.fingerprint(found) != first


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_field_is_loaded_or_refused(tmp_path, musique_rows, data):
    row = json.loads(json.dumps(musique_rows["dev"][0]))
    place = data.draw(
        st.sampled_from([row, row["paragraphs"], row["paragraphs"][2], row["question_decomposition"][1]]), label="place"
    )
    key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))), label="key")
    place[key] = data.draw(json_values)
    file = tmp_path / "dev.jsonl"
    file.write_text(json.dumps(row) + "\n")
    try:
        store.add("musique", [file])
    except DataInvalid:
        return
    data = musique.load()
    assert list(data.splits["dev"])
    assert sum(1 for _ in data.pool.passages()) == data.pool.count()
