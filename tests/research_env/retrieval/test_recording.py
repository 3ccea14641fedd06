"""Answers kept in a file: record, cache, replay."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from research_env.errors import RetrievalError
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.retrieval.gateway.recording import Replay
from research_env.types import Corpus
from tests.research_env.retrieval.fake_backend import Backend, hits

QUERIES = ["Élan café", "", "\ud800", 'quo"te\n\0', "北京"]


def test_a_recording_repeats_a_run_without_its_backend(tmp_path: Path) -> None:
    file = str(tmp_path / "run.sqlite")
    first = Gateway(Backend(), GatewayOptions(recording=file, mode="record"))
    found = first.search(QUERIES, 2)
    first.close()
    replay = Gateway(Replay(file), GatewayOptions(recording=file, mode="replay"))
    assert replay.search(QUERIES, 2) == found
    assert replay.corpus == Corpus("pool", 3, "abc")
    with pytest.raises(RetrievalError, match=r"no answer to 'new' with top_k 2.*mode='record'"):
        replay.search(["new"], 2)


def test_a_recording_as_a_cache_asks_only_what_is_new(tmp_path: Path) -> None:
    options = GatewayOptions(recording=str(tmp_path / "run.sqlite"))
    Gateway(Backend(), options).search(["a", "b"], 1)
    backend = Backend()
    assert Gateway(backend, options).search(["a", "c"], 1) == [hits("a", 1), hits("c", 1)]
    assert backend.calls == [["c"]]
    backend = Backend()
    Gateway(backend, options.model_copy(update={"mode": "record"})).search(["a"], 1)
    assert backend.calls == [["a"]], "record asks for everything"


def test_a_recording_of_something_else_is_refused(tmp_path: Path) -> None:
    options = GatewayOptions(recording=str(tmp_path / "run.sqlite"))
    Gateway(Backend(), options)
    other = Backend()
    other.corpus = Corpus("pool", 4, "def")
    with pytest.raises(RetrievalError, match=r"another corpus.*give another file"):
        Gateway(other, options)
    (tmp_path / "text").write_text("no database" * 100)
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE about (key, value)")
    with pytest.raises(RetrievalError, match="is not a recording"):
        Replay(tmp_path / "empty.sqlite")
    with pytest.raises(RetrievalError, match=r"recording=.*text"):
        Gateway(Backend(), GatewayOptions(recording=str(tmp_path / "text")))
    with pytest.raises(RetrievalError, match="no such file"):
        Replay(tmp_path / "nowhere")
