"""A real Elasticsearch: an index is built, resumed after a kill, verified, and refuses another corpus."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from research_env.__main__ import main
from research_env.corpora.reader import open_file
from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval import open_retriever
from research_env.retrieval.elasticsearch import index
from research_env.retrieval.embedded.encoder import Encoder
from research_env.types import Passage

pytestmark = [pytest.mark.elasticsearch, pytest.mark.usefixtures("no_credentials")]

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_building_again_changes_nothing(words: str, words_file: Path, capsys: pytest.CaptureFixture) -> None:
    before = open_retriever(words).corpus
    assert run("index", "build", "--corpus", words_file, "--to", words) == 0
    assert open_retriever(words).corpus == before


def test_another_corpus_and_other_settings_are_refused(
    words: str, tmp_path: Path, words_file: Path, make_rows: Any, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in make_rows(10, seed=9)))
    assert run("index", "build", "--corpus", other, "--to", words) == 2
    assert "of another corpus" in capsys.readouterr().err
    assert run("index", "build", "--corpus", words_file, "--to", words, "--k1", "0.9", "--analyser", "standard") == 2
    said = capsys.readouterr().err
    assert "k1: 1.2 there, 0.9 wanted" in said
    assert "field title, analyzer: 'english' there, 'standard' wanted" in said
    assert run("index", "verify", words, "--corpus", other) == 2
    assert "2,500 passages, but corpus other has 10" in capsys.readouterr().err


def test_a_build_that_was_killed_goes_on(
    cluster: Any, make_rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """kill -9 in the middle of a build; until the index is complete, nobody can search it."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(120_000)))
    address = cluster.address()
    command = [sys.executable, "-m", "research_env", "index", "build", "--corpus", str(path), "--to", address]
    victim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = cluster.client()
    name = address.rsplit("/", 1)[1]
    until = time.monotonic() + 120
    while victim.poll() is None and time.monotonic() < until:
        if client.indices.exists(index=name) and cluster.about(address)["done"]:
            break
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait(60)
    about = cluster.about(address)
    if about["complete"]:
        pytest.skip("the build was faster than the kill")
    assert about["done"] >= 50_000
    with pytest.raises(RetrievalError, match="its build was stopped"):
        open_retriever(address)
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    assert run("index", "verify", address, "--corpus", path) == 0
    client.indices.delete(index=name)
    client.close()


def test_a_build_does_not_go_on_with_another_corpus(
    cluster: Any, make_rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As many passages with the same ids, but one of the first has changed."""
    path, address = tmp_path / "c.jsonl", cluster.address()
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(3_000)))
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    client, name = cluster.client(), address.rsplit("/", 1)[1]
    content = open_file(path)
    list(islice(content, 2_000))
    begun = {**cluster.about(address), "complete": False, "done": 2_000, "hash": content.content.hexdigest()}
    client.indices.put_mapping(index=name, meta=begun)
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    client.indices.put_mapping(index=name, meta=begun)
    path.write_text(path.read_text().replace("vordak", "vormok", 1))
    assert run("index", "build", "--corpus", path, "--to", address) == 2
    assert "its first 2,000 passages were others" in capsys.readouterr().err
    client.close()


def test_a_failing_build_stops_at_once(
    cluster: Any, make_rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, address = tmp_path / "c.jsonl", cluster.address()
    with path.open("w") as file:
        file.write(json.dumps({"id": "x" * 600, "text": "an id must not be longer than 512 bytes"}) + "\n")
        file.writelines(json.dumps(row) + "\n" for row in make_rows(100_000))
    assert run("index", "build", "--corpus", path, "--to", address) == 2
    said = capsys.readouterr().err
    assert "status 400" in said
    assert "id [xxx" in said or "id is too long" in said
    assert said.count("\n") == 1
    client = cluster.client()
    name = address.rsplit("/", 1)[1]
    client.indices.refresh(index=name)
    assert client.count(index=name)["count"] < 50_000
    client.close()


def test_aliases(cluster: Any, words: str, capsys: pytest.CaptureFixture, words_file: Path) -> None:
    """An alias of one index can be searched; of two, one would pass for both."""
    client = cluster.client()
    alias = cluster.address()
    client.indices.put_alias(index=words.rsplit("/", 1)[1], name=alias.rsplit("/", 1)[1])
    assert open_retriever(alias).corpus.passages == 2_500
    assert run("index", "verify", alias) == 2
    assert "is an alias; name the index itself" in capsys.readouterr().err
    other = cluster.address()
    assert run("index", "build", "--corpus", words_file, "--to", other) == 0
    client.indices.put_alias(index=other.rsplit("/", 1)[1], name=alias.rsplit("/", 1)[1])
    with pytest.raises(ConfigurationError, match="is an alias of 2 indexes; name one"):
        open_retriever(alias)
    client.close()


def test_what_was_changed_behind_our_back_is_found(
    cluster: Any, words_file: Path, capsys: pytest.CaptureFixture
) -> None:
    address = cluster.address()
    assert run("index", "build", "--corpus", words_file, "--to", address) == 0
    client, name = cluster.client(), address.rsplit("/", 1)[1]
    client.update(index=name, id="p3", doc={"text": "tampered"}, refresh=True)
    assert run("index", "verify", address) == 2
    assert "content hash" in capsys.readouterr().err
    client.delete(index=name, id="p3", refresh=True)
    assert run("index", "verify", address, "--corpus", words_file) == 2
    assert "2,499 passages, but its own record has 2,500" in capsys.readouterr().err
    client.close()


def test_a_read_only_index_is_named(cluster: Any, words_file: Path, capsys: pytest.CaptureFixture) -> None:
    """What Elasticsearch does to its indexes when the disk runs full."""
    address = cluster.address()
    client = cluster.client()
    assert run("index", "build", "--corpus", words_file, "--to", address) == 0
    name = address.rsplit("/", 1)[1]
    about = cluster.about(address)
    client.indices.put_mapping(index=name, meta={**about, "complete": False, "done": 0})
    client.indices.put_settings(index=name, settings={"blocks.read_only_allow_delete": True})
    assert run("index", "build", "--corpus", words_file, "--to", address) == 2
    said = capsys.readouterr().err
    assert "disk is full" in said
    assert said.count("\n") == 1
    client.close()


def test_an_encoded_build_that_was_stopped_goes_on(
    cluster: Any, words_file: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ctrl-C in the fourth of five chunks: the other two are all that is left, and prompts are kept in the index."""
    address, encode = cluster.address(), Encoder.passages
    chunks: list[str] = []

    def watched(self: Encoder, passages: list[Passage]) -> Any:
        if len(chunks) == 3:
            chunks.append("stopped")
            raise KeyboardInterrupt
        chunks.append(passages[0].id)
        return encode(self, passages)

    monkeypatch.setattr(Encoder, "passages", watched)
    monkeypatch.setattr(index, "_CHUNK", 500)
    command = ["index", "build", "--corpus", words_file, "--to", address, "--encoder", encoder]
    assert run(*command, "--passage-prompt", "gespon ") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert run(*command, "--passage-prompt", "gespon ") == 0
    assert chunks == ["p0", "p500", "p1000", "stopped", "p1500", "p2000"]
    assert run("index", "verify", address, "--corpus", words_file) == 0
    assert cluster.about(address)["settings"]["prompts"] == {"query": "query: ", "passage": "gespon "}
    assert open_retriever(address, rank="dense").search(["vordak"], 3)[0]
    assert run(*command) == 2
    assert "{'query': 'query: ', 'passage': 'passage: '} wanted" in capsys.readouterr().err
