"""Folders and files as corpora, `index build`, and addresses that cannot work."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from research_env.__main__ import main
from research_env.errors import ConfigurationError, DataInvalid, RetrievalError
from research_env.retrieval import open_retriever
from research_env.retrieval.base import NoRetriever
from research_env.types import Corpus, Hit, Passage

SYNTHETIC = "research_env:ReSearch-Synthetic-v0"
ROWS = [
    {"id": "p0", "title": "Amber Kesh", "text": "Amber Kesh is a novel by Bram Tovik."},
    {"id": "p1", "title": "Bram Tovik", "text": "Bram Tovik was born in Lundor Quay."},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_a_file_is_indexed_at_first_use_and_again_when_it_changes(file: Path, research_home: Path) -> None:
    first = open_retriever(str(file))
    assert [hit.passage.id for hit in first.search(["born"], 5)[0]] == ["p1"]
    assert first.corpus.passages == 2
    assert open_retriever(str(file)).corpus == first.corpus
    assert len(list((research_home / "indexes").glob("books-*/about.json"))) == 1
    file.write_text(file.read_text() + json.dumps({"id": "p2", "title": "", "text": "born again"}) + "\n")
    assert open_retriever(str(file)).corpus.passages == 3


def test_a_folder_is_built_once_and_opened(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "index"
    for _ in range(2):
        assert run("index", "build", "--corpus", file, "--to", folder) == 0
        assert "books, 2 passages, content hash" in capsys.readouterr().out
    assert open_retriever(str(folder)).corpus == open_retriever(str(file)).corpus


def test_another_language(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, folder = tmp_path / "haus.jsonl", tmp_path / "index"
    file.write_text(json.dumps({"id": "p0", "title": "Häuser", "text": "Was der alte Mann den Häusern sagte"}) + "\n")
    assert run("index", "build", "--corpus", file, "--to", folder, "--analyser", "german") == 0
    retriever = open_retriever(str(folder))
    assert retriever.settings["analyser"] == "german"
    assert [len(hits) for hits in retriever.search(["hause", "der", "was sagte er"], 1)] == [1, 0, 1]
    capsys.readouterr()
    assert run("index", "build", "--corpus", file, "--to", folder) == 2
    assert "was made with --analyser german, not english; give another folder" in capsys.readouterr().err
    assert run("index", "build", "--corpus", file, "--to", tmp_path / "other", "--analyser", "klingon") == 2
    assert "--analyser='klingon' is unknown; known: arabic, danish" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_an_episode_over_a_file(file: Path) -> None:
    env = gym.make(SYNTHETIC, corpus=str(file), disable_env_checker=True)
    _, info = env.reset(seed=0)
    assert info["corpus"] == env.unwrapped.metadata["corpus"]
    assert (info["corpus"]["name"], info["corpus"]["passages"]) == ("books", 2)
    *_, info = env.step("<think> x </think> <search> Amber Kesh </search>")
    assert info["passage_ids"] == ["p0"]


def test_a_run_is_repeated_from_its_recording(file: Path, tmp_path: Path) -> None:
    turn = "<think> x </think> <search> Amber Kesh </search>"
    recording = {"recording": str(tmp_path / "run.sqlite")}
    env = gym.make(SYNTHETIC, corpus=str(file), retrieval={**recording, "mode": "record"}, disable_env_checker=True)
    env.reset(seed=0)
    first = env.step(turn)
    file.unlink()
    env = gym.make(SYNTHETIC, corpus=str(file), retrieval={**recording, "mode": "replay"}, disable_env_checker=True)
    env.reset(seed=0)
    assert env.step(turn) == first
    env.reset(seed=1)
    with pytest.raises(RetrievalError, match="no answer to 'Orlo'"):
        env.step("<think> x </think> <search> Orlo </search>")


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("nowhere", {}, "there is no such file or folder"),
        ("ftp://host/x", {}, "ftp:// is unknown; known: elasticsearch://"),
        ("{file}", {"timeout": 3}, "option timeout is unknown; known: rank, device"),
        ("{file}", {"api_key": "secret"}, "option api_key is unknown"),
        ("ftp://user:se/cret@host/x", {}, "leave credentials out of the address"),
        ("elasticsearch://[::1/x", {}, "write elasticsearch://host:9200/index"),
        ("elasticsearch://host/_all", {}, "write elasticsearch://host:9200/index"),
        ("elasticsearch://host/wiki*", {}, "write elasticsearch://host:9200/index"),
        ("http://[::1", {}, "write http://host:8000"),
        ("pooled", {"mode": "replay"}, "say with recording=FILE what to replay"),
        ("pooled", {"mode": "replay", "recording": "nowhere"}, "there is no such file"),
        ("{file}", {"deadline": 0}, "option deadline=0: give more than 0"),
        ("{file}", {"mode": "tape"}, "option mode='tape'"),
        ("{file}", {"mode": "replay"}, "say with recording=FILE what to replay"),
        ("{file}", {"rank": "dense"}, "--encoder MODEL"),
        ("{folder}", {}, "that folder holds no index; build one"),
        ("x" * 300, {}, "File name too long"),
        ("nowhere.nothing:open://x", {}, "cannot be loaded (ModuleNotFoundError: No module named 'nowhere')"),
        (":open://x", {}, "cannot be loaded (ValueError: Empty module name)"),
        ("http://host/?token=secret", {}, "leave credentials out of the address"),
        ("elasticsearch://host/wiki#secret", {}, "leave credentials out of the address"),
        ("http://ü..de", {}, "write http://host:8000"),
        ("http://" + "h" * 70 + ".de", {}, "write http://host:8000"),
        ("http://", {}, "write http://host:8000"),
        ("http://user:secret@host", {}, "leave credentials out of the address"),
        ("http://127.0.0.1:1", {}, "cannot be reached; is the server running?"),
        ("pooled", {"timeout": 3}, "option timeout is unknown"),
        ("http://host:80a", {}, "write http://host:8000"),
        ("{file}", {"mode": "record"}, "say with recording=FILE what to record"),
    ],
)
def test_what_cannot_work_is_one_line_when_the_environment_is_made(
    address: str, options: dict[str, Any], said: str, file: Path, tmp_path: Path
) -> None:
    address = address.replace("{file}", str(file)).replace("{folder}", str(tmp_path))
    with pytest.raises((ConfigurationError, RetrievalError)) as caught:
        gym.make(SYNTHETIC, corpus=address, retrieval=options, disable_env_checker=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "address"),
    [("ELASTIC_API_KEY", "elasticsearch://127.0.0.1:1/x"), ("RESEARCH_RETRIEVAL_TOKEN", "http://127.0.0.1:1")],
)
def test_secrets_are_never_shown(variable: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "s3cret\n")
    with pytest.raises(RetrievalError, match="cannot be reached") as caught:
        open_retriever(address)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv(variable, "s3crét")
    with pytest.raises(ConfigurationError, match=f"{variable} holds characters") as refused:
        open_retriever(address)
    assert "s3cr" not in str(refused.value)


def open_words(address: str, options: dict[str, Any]) -> Any:
    """Somebody else's retriever: finds the words of the address."""

    class Words(NoRetriever):
        def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
            words = address.partition("://")[2].split("/")
            return [[Hit(Passage(word, "", word), 1.0) for word in words if word in query] for query in queries]

    assert options == {"loud": True}
    return Words()


def test_somebody_elses_retriever() -> None:
    retriever = open_retriever(f"{__name__}:open_words://amber/kesh", loud=True)
    assert [hit.passage.id for hit in retriever.search(["who wrote kesh?"], 5)[0]] == ["kesh"]


def open_without_options(address: str) -> Any:
    return NoRetriever()


def open_half(address: str, options: dict[str, Any]) -> Any:
    class Half:
        corpus = Corpus("half", 1, None)

        def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
            return []

    return Half()


def open_another_corpus(address: str, options: dict[str, Any]) -> Any:
    class Words(NoRetriever):
        corpus = {"name": "words"}  # type: ignore[assignment]

    return Words()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("open_without_options", "cannot be called with (str, dict): too many positional arguments"),
        ("open_half", "makes Half, which lacks: settings, max_batch, concurrency, close"),
        ("open_another_corpus", "the retriever's corpus is dict, not a research_env.types.Corpus"),
        ("ROWS", "list, which cannot be called"),
        ("open_nothing", "cannot be loaded (AttributeError"),
    ],
)
def test_a_retriever_that_does_not_fit_is_one_clear_line(function: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gym.make(SYNTHETIC, corpus=f"{__name__}:{function}://x", disable_env_checker=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_keeps_its_corpus(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("index", "build", "--corpus", file, "--to", tmp_path / "index") == 0
    file.write_text(file.read_text().replace("novel", "poem"))
    assert run("index", "build", "--corpus", file, "--to", tmp_path / "index") == 2
    assert "holds the index of another corpus" in capsys.readouterr().err


def test_without_retrieval_its_options_do_not_matter() -> None:
    """A run over a cluster evaluates without retrieval by changing `corpus` alone."""
    gym.make(SYNTHETIC, corpus="none", retrieval={"timeout": 3}, disable_env_checker=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corpus", "nowhere", "--to", "{tmp}/index"], "'nowhere' is neither a file nor a data set"),
        (["--corpus", "{bad}", "--to", "{tmp}/index"], "line 1"),
        (["--corpus", "{file}", "--to", "ftp://host/x"], "write elasticsearch://host:9200/index"),
        (
            ["--corpus", "{file}", "--to", "elasticsearch://u:s3cret@host/x"],
            "leave credentials out of the address",
        ),
        (["--corpus", "{file}", "--to", "{file}"], "that is a file; give a folder"),
        (["--corpus", "{file}", "--to", "{tmp}"], "holds something that is not an index"),
        (["--corpus", "{file}", "--to", "elasticsearch://127.0.0.1:1/x"], "cannot be reached"),
        (["--corpus", "{empty}", "--to", "{tmp}/index"], "corpus empty holds no passages"),
        (["--corpus", "{bad}", "--to", "{tmp}/index", "--skip-bad-rows"], "corpus bad holds no passages"),
        (["--corpus", "{cut}", "--to", "{tmp}/index", "--skip-bad-rows"], "cut.json: '[{\"id\"' is not JSON"),
        (["--corpus", "{file}", "--to", "{tmp}/index", "--k1", "1.5"], "--k1: for Elasticsearch only"),
        (["--corpus", "{file}", "--to", "elasticsearch://127.0.0.1:1/x", "--replicas", "-1"], "--replicas -1"),
    ],
)
def test_builds_that_cannot_work_leave_nothing(
    arguments: list[str], said: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {"{tmp}": str(tmp_path), "{file}": str(file)}
    for name, text in {"bad.jsonl": "{\n", "empty.jsonl": "", "cut.json": '[{"id"'}.items():
        (tmp_path / name).write_text(text)
        places[f"{{{name.split('.')[0]}}}"] = str(tmp_path / name)
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("index", "build", *arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == before


def test_bad_rows_are_left_out_when_asked(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file.write_text(file.read_text() + "{\n")
    assert run("index", "build", "--corpus", file, "--to", tmp_path / "index", "--skip-bad-rows") == 0
    assert "2 passages (1 bad rows left out)" in capsys.readouterr().out
    with pytest.raises(DataInvalid, match="line 3"):
        open_retriever(str(file))


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/bin/mount"), reason="mounting needs root")
def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A small tmpfs: one line, and nothing half-written."""
    disk, corpus = tmp_path / "disk", tmp_path / "many.jsonl"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m tmpfs {disk} 2>/dev/null"):
        pytest.skip("mounting is not allowed here")
    try:
        rows = ({"id": str(i), "title": f"title {i}", "text": os.urandom(300).hex()} for i in range(20_000))
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run("index", "build", "--corpus", corpus, "--to", disk / "index") == 2
        err = capsys.readouterr().err
        assert "free disk space there" in err
        assert err.count("\n") == 1
        assert [path for path in disk.iterdir() if path.suffix != ".lock"] == []
    finally:
        os.system(f"umount {disk}")
