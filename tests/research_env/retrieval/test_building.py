"""Building an index in a folder: nothing of others is lost, a build that was stopped goes on, its result is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_env import progress
from research_env.__main__ import main
from research_env.retrieval import open_retriever
from research_env.retrieval.embedded import place, vectors
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions
from research_env.types import Passage

ROOT = Path(__file__).resolve().parents[3]
ROWS = 200
CHUNK = 32  # so 7 chunks

Build = Callable[..., int]


@pytest.fixture
def corpus(tmp_path: Path, make_rows: Any) -> Path:
    return write(tmp_path / "words.jsonl", make_rows(ROWS))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def build(corpus: Path, tmp_path: Path) -> Build:
    """Builds `wiki` of the corpus."""

    def run(*more: Any) -> int:
        return main(["index", "build", "--corpus", str(corpus), "--to", str(tmp_path / "wiki"), *map(str, more)])

    return run


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_others_is_touched(build: Build, tmp_path: Path) -> None:
    """Whatever an index is built with has a name that somebody could use for something else."""
    for name in ("wiki.tmp_backup", "wiki.tmp", "wiki.old", ".wiki", "wikis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("precious")
    (tmp_path / "wiki.lock").write_text("precious")
    before = listing(tmp_path)
    assert build() == 0
    after = {name: content for name, content in listing(tmp_path).items() if not name.startswith("wiki/")}
    assert after == before, "nothing is lost, and nothing is left behind"


@pytest.mark.parametrize("name", ["wiki", "wiki.building"])
def test_a_folder_with_other_files_is_refused(build: Build, tmp_path: Path, name: str, capsys: Any) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("precious")
    before = listing(tmp_path)
    assert build() == 2
    said = capsys.readouterr().err
    assert str(tmp_path / name) in said
    assert "give another folder" in said
    assert listing(tmp_path) == before


def test_a_process_that_begins_at_the_same_moment_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that need the same index: the other one claims the folder while this one looks into it."""
    work = tmp_path / "index.building"
    work.mkdir()
    listed = Path.iterdir

    def iterdir(self: Path) -> Any:
        (work / place._MARKER).write_text("token")
        (work / "terms").mkdir(exist_ok=True)
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert place._claim(work) == "token"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_place_that_takes_no_folders_is_said(tmp_path: Path, capsys: Any) -> None:
    """The system says there that the folder does not exist, as it does of one that another process has removed."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "text": "alpha"}\n')
    assert main(["index", "build", "--corpus", str(corpus), "--to", "/proc/x"]) == 2
    assert "could not be built in /proc" in capsys.readouterr().err


def test_files_beside_an_index_stay_when_vectors_are_added(build: Build, tmp_path: Path, encoder: Path) -> None:
    assert build() == 0
    (tmp_path / "wiki" / "dense.tmp_notes").mkdir()
    (tmp_path / "wiki" / "dense.tmp_notes" / "thesis.txt").write_text("precious")
    assert build("--encoder", encoder) == 0
    assert (tmp_path / "wiki" / "dense.tmp_notes" / "thesis.txt").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"wiki", "words.jsonl"}


def test_a_link_to_an_empty_folder(build: Build, tmp_path: Path) -> None:
    (tmp_path / "disk" / "wiki").mkdir(parents=True)
    (tmp_path / "wiki").symlink_to(tmp_path / "disk" / "wiki")
    assert build() == 0
    assert open_retriever(str(tmp_path / "wiki")).corpus.passages == ROWS


class Stopped(BaseException):
    """As Ctrl-C."""


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """First ids of the chunks that were encoded. `stop_after(n)` is `chunks.append("stop n")`."""
    seen: list[str] = []
    encode = Encoder.passages

    def watched(self: Encoder, passages: list[Passage]) -> np.ndarray:
        encoded = [ident for ident in seen if not ident.startswith("stop")]
        if seen and seen[0] == f"stop {len(encoded)}":
            raise Stopped
        seen.append(passages[0].id)
        return encode(self, passages)

    monkeypatch.setattr(vectors, "_CHUNK", CHUNK)
    monkeypatch.setattr(Encoder, "passages", watched)
    return seen


@pytest.fixture
def whole(corpus: Path, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The vectors of a build that nothing has interrupted."""
    monkeypatch.setattr(vectors, "_CHUNK", CHUNK)
    place = tmp_path / "elsewhere" / "wiki"
    assert main(["index", "build", "--corpus", str(corpus), "--to", str(place), "--encoder", str(encoder)]) == 0
    return listing(place / "dense")


def stopped(build: Build, encoder: Path, chunks: list[str], after: int = 3) -> None:
    chunks[:] = [f"stop {after}"]
    with pytest.raises(Stopped):
        build("--encoder", encoder)
    chunks.clear()


def test_a_build_that_was_stopped_goes_on(
    whole: dict[str, bytes], build: Build, tmp_path: Path, encoder: Path, chunks: list[str], capsys: Any
) -> None:
    stopped(build, encoder, chunks)
    assert not (tmp_path / "wiki").exists(), "what is there is whole"
    capsys.readouterr()
    assert main(["index", "verify", str(tmp_path / "wiki")]) == 2
    assert "its build was not finished: run index build again" in capsys.readouterr().err
    assert build("--encoder", encoder) == 0
    assert chunks == [f"p{number * CHUNK}" for number in range(3, 7)], "no chunk is encoded twice"
    assert f"{3 * CHUNK} of {ROWS} passages have been encoded before" in capsys.readouterr().err
    assert listing(tmp_path / "wiki" / "dense") == whole
    assert {path.name for path in tmp_path.iterdir()} == {"wiki", "words.jsonl", "elsewhere"}
    assert main(["index", "verify", str(tmp_path / "wiki")]) == 0


KILLED = """
import os, sys
from research_env.__main__ import main
from research_env.retrieval.embedded import place, vectors
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions
vectors._CHUNK = int(sys.argv[1])
encode, left = Encoder.passages, [3]
def killed(self, passages):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    return encode(self, passages)
Encoder.passages = killed
main(sys.argv[2:])
"""


def test_a_build_that_was_killed_goes_on(
    whole: dict[str, bytes], build: Build, tmp_path: Path, corpus: Path, encoder: Path, chunks: list[str]
) -> None:
    """Also from what the kill has left half-written after the last whole chunk."""
    arguments = ["index", "build", "--corpus", corpus, "--to", tmp_path / "wiki", "--encoder", encoder]
    command = [sys.executable, "-c", KILLED, str(CHUNK), *map(str, arguments)]
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == -9
    for name in ("vectors.f32", "passages.jsonl"):
        with (tmp_path / "wiki.building" / "vectors" / name).open("ab") as file:
            file.write(b"half")
    assert build("--encoder", encoder) == 0
    assert len(chunks) == 4
    assert listing(tmp_path / "wiki" / "dense") == whole


@pytest.mark.parametrize(("change", "encoded"), [("first", 7), ("last", 4), ("order", 7), ("within", 4)])
def test_a_changed_corpus(
    build: Build, tmp_path: Path, corpus: Path, encoder: Path, make_rows: Any, chunks: list[str], capsys: Any,
    change: str, encoded: int,
) -> None:  # fmt: skip
    """It begins anew and says so; vectors are of use again where the passages before them are the same."""
    stopped(build, encoder, chunks)
    rows = make_rows(ROWS)
    if change in ("order", "within"):
        other = -1 if change == "order" else 1
        rows[0], rows[other] = rows[other], rows[0]
    else:
        rows[0 if change == "first" else -1]["text"] = "vordak"
    write(corpus, rows)
    assert build("--encoder", encoder) == 0
    assert ("begin" in capsys.readouterr().err) == (change != "within")
    assert len(chunks) == encoded
    assert main(["index", "verify", str(tmp_path / "wiki"), "--corpus", str(corpus)]) == 0
    # Each vector is that of the passage beside it.
    lines = (tmp_path / "wiki" / "dense" / "passages.jsonl").read_text().splitlines()
    passages = [Passage(*json.loads(line)) for line in lines]
    assert sorted(p.id for p in passages) == sorted(row["id"] for row in rows)
    kept = np.fromfile(tmp_path / "wiki" / "dense" / "vectors.f32", np.float32).reshape(ROWS, -1)
    assert np.abs(kept - Encoder(EncoderOptions(str(encoder))).passages(passages)).max() < 1e-5


def test_another_encoder_begins_anew_and_says_so(
    build: Build, tmp_path: Path, encoder: Path, chunks: list[str], capsys: Any
) -> None:
    stopped(build, encoder, chunks)
    assert build("--encoder", encoder, "--passage-prompt", "kelmok ") == 0
    assert "by another encoder or with other prompts: encoding begins anew" in capsys.readouterr().err
    assert len(chunks) == 7
    about = json.loads((tmp_path / "wiki" / "dense" / "about.json").read_text())
    assert about["prompts"]["passage"] == "kelmok "


def test_the_terms_are_to_be_had_without_the_vectors(
    build: Build, tmp_path: Path, encoder: Path, chunks: list[str]
) -> None:
    """And the vectors that there are wait for later."""
    stopped(build, encoder, chunks)
    assert build() == 0
    assert open_retriever(str(tmp_path / "wiki")).corpus.passages == ROWS
    assert build("--encoder", encoder) == 0
    assert len(chunks) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"wiki", "words.jsonl"}


def test_a_bad_encoder_is_noticed_first_and_blocks_nothing(
    build: Build, tmp_path: Path, corpus: Path, make_rows: Any, encoder: Path, monkeypatch: Any, capsys: Any
) -> None:
    assert build("--encoder", tmp_path / "no-such-model") == 2
    said = capsys.readouterr().err
    assert "cannot be loaded" in said
    assert said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"words.jsonl"}

    def fails(self: Encoder, passages: list[Passage]) -> np.ndarray:
        raise RuntimeError("CUDA out of memory\nmore")

    with monkeypatch.context() as patch:
        patch.setattr("sentence_transformers.SentenceTransformer.encode_document", lambda *_, **__: fails(None, []))
        assert build("--encoder", encoder) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("failed (CUDA out of memory more)")
    write(corpus, make_rows(50))
    assert build() == 0
    assert open_retriever(str(tmp_path / "wiki")).corpus.passages == 50


def test_verify(build: Build, tmp_path: Path, corpus: Path, make_rows: Any, encoder: Path, capsys: Any) -> None:
    place = tmp_path / "wiki"
    assert main(["index", "verify", str(place)]) == 2
    assert "holds no index" in capsys.readouterr().err
    assert build("--encoder", encoder) == 0
    assert main(["index", "verify", str(place), "--corpus", str(corpus)]) == 0
    assert f"{ROWS} passages, content hash" in capsys.readouterr().out
    other = write(tmp_path / "other.jsonl", make_rows(ROWS, seed=1))
    assert main(["index", "verify", str(place), "--corpus", str(other)]) == 2
    assert "but corpus other has" in capsys.readouterr().err
    about = json.loads((place / "about.json").read_text())
    (place / "about.json").write_text(json.dumps({**about, "corpus": {**about["corpus"], "hash": "0" * 32}}))
    assert main(["index", "verify", str(place)]) == 2
    assert f"but its own record has {'0' * 32}" in capsys.readouterr().err
    (place / "about.json").write_text(json.dumps(about))
    vectors_file = place / "dense" / "vectors.f32"
    content = vectors_file.read_bytes()
    for damaged, said in ((content[: -4 * 32], "199 vectors of 200"), (bytes(len(content)), "not all of length 1")):
        vectors_file.write_bytes(damaged)
        assert main(["index", "verify", str(place)]) == 2
        assert said in capsys.readouterr().err


def test_what_is_left_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A line where there is no terminal: 30 of 100 were done before, and 20 in 2 s leave 50, which take 5 s."""
    now = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with progress.progress("encoding", 100, 30) as step:
        step(50)
        step(52)
    assert capsys.readouterr().err.splitlines() == [
        "encoding: 50 of 100, 10/s, 0:00:05 left",
        "encoding: 52 of 100, 5.5/s, 0:00:09 left",
    ]
