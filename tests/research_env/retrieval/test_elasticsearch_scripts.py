"""A real Elasticsearch: scripts without spaces and text in other forms are found as by the embedded index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research_env.__main__ import main
from research_env.retrieval import open_retriever
from tests.research_env.retrieval.test_searchable import FOUND, NOT_FOUND, TEXTS
from tests.research_env.retrieval.test_searchable import texts_file as texts_file

pytestmark = [pytest.mark.elasticsearch, pytest.mark.usefixtures("no_credentials")]


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_both_engines_find_the_same_and_store_the_original(
    cluster: Any, texts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    address = cluster.address()
    for place in (address, tmp_path / "index"):
        assert run("index", "build", "--corpus", texts_file, "--to", place) == 0
    theirs, ours = open_retriever(address), open_retriever(str(tmp_path / "index"))
    assert theirs.corpus.hash == ours.corpus.hash
    queries = [query for query, _ in FOUND]
    found = theirs.search(queries, 1)
    assert [[hit.passage.id for hit in hits] for hits in found] == [[ident] for _, ident in FOUND]
    assert {(hits[0].passage.id, hits[0].passage.title, hits[0].passage.text) for hits in found} == set(TEXTS)
    assert theirs.search(NOT_FOUND, 5) == [[]] * len(NOT_FOUND)
    # The scores are nearly the same, too; the other passages have not the same lengths in both.
    for query in ("北京大学在哪里", "電波塔", "เมืองหลวง"):
        expected = [hit.score for hit in ours.search([query], 3)[0]]
        assert [hit.score for hit in theirs.search([query], 3)[0]] == pytest.approx(expected, rel=1e-2)
    assert len(theirs.search(["東" * 500 + "京" * 500], 1)[0]) == 1, "a long query is no error"
    assert run("index", "verify", address, "--corpus", texts_file) == 0


def test_an_index_of_an_earlier_version(
    cluster: Any, texts_file: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    """It can be searched, and the person is told; a build does not go on with it."""
    address = cluster.address()
    assert run("index", "build", "--corpus", texts_file, "--to", address) == 0
    client = cluster.client()
    about = {name: value for name, value in cluster.about(address).items() if name != "layout"}
    client.indices.put_mapping(index=address.rsplit("/", 1)[1], meta=about)
    client.close()
    assert [hit.passage.id for hit in open_retriever(address).search(["Amber Kesh"], 1)[0]] == ["en"]
    assert "was made by an earlier version" in caplog.text
    assert run("index", "build", "--corpus", texts_file, "--to", address) == 2
    assert "was made by an earlier version; it can be searched as before" in capsys.readouterr().err
