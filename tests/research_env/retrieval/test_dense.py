"""Vectors: a tiny encoder made on the spot, the embedded index, fusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_env.__main__ import main
from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval import open_retriever
from research_env.retrieval.embedded.dense import Encoder, prefixes
from research_env.retrieval.fusion import reciprocal_rank
from research_env.types import Hit, Passage

pytest.importorskip("faiss")
pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def passages(make_rows: Any) -> list[Passage]:
    return [Passage(**row) for row in make_rows(14)]


@pytest.fixture(scope="module")
def folder(encoder: Path, passages: list[Passage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with terms and vectors."""
    place = tmp_path_factory.mktemp("dense")
    rows = ({"id": p.id, "title": p.title, "text": p.text} for p in passages)
    (place / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["index", "build", "--corpus", place / "words.jsonl", "--to", place / "index", "--encoder", encoder]
    assert main([str(word) for word in command]) == 0
    return place / "index"


def test_the_nearest_passages_are_found(folder: Path, encoder: Path, passages: list[Passage]) -> None:
    """Against the cosine worked out with NumPy."""
    tiny = Encoder(str(encoder))
    queries = [contents(passages[4]), "vordak kelmok", "gespon"]
    similarity = tiny.queries(queries) @ tiny.passages(passages).T
    found = open_retriever(str(folder), rank="dense").search(queries, 4)
    for line, hits in zip(similarity, found, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(sorted(line, reverse=True)[:4], abs=1e-5)
        assert [hit.passage for hit in hits] == [passages[i] for i in np.argsort(-line)[:4]]


def test_vectors_have_length_one_and_any_text_has_one(encoder: Path) -> None:
    vectors = Encoder(str(encoder)).queries(["vordak", "", "\ud800 \0", "x " * 20_000])
    assert vectors.shape == (4, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_blank_queries_find_nothing(folder: Path) -> None:
    found = open_retriever(str(folder), rank="dense").search(["", "vordak", " \n"], 3)
    assert [len(hits) for hits in found] == [0, 3, 0]


def test_more_than_there_is(folder: Path, passages: list[Passage]) -> None:
    assert len(open_retriever(str(folder), rank="dense").search(["vordak"], 100)[0]) == len(passages)


def test_hybrid_is_the_fusion_of_both(folder: Path) -> None:
    query = "vordak kelmok tovzim"
    both = [open_retriever(str(folder), rank=rank).search([query], 50)[0] for rank in ("bm25", "dense")]
    hybrid = open_retriever(str(folder), rank="hybrid")
    assert hybrid.search([query], 5)[0] == reciprocal_rank(both, 5)
    assert hybrid.settings["k"] == 60


def test_fusion_by_hand() -> None:
    """1/61 + 1/62 for what is first and second, 1/61 and 1/62 for what is in one ranking alone."""
    a, b, c = (Passage(name, "", "") for name in "abc")
    fused = reciprocal_rank([[Hit(a, 9.0), Hit(b, 8.0)], [Hit(c, 0.9), Hit(a, 0.8)]], 3)
    assert [hit.passage.id for hit in fused] == ["a", "c", "b"]
    assert [hit.score for hit in fused] == pytest.approx([0.0325225, 0.0163934, 0.0161290], abs=1e-7)
    assert reciprocal_rank([[], []], 3) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", ("query: ", "passage: ")),
        ("/models/multilingual-e5-large/", ("query: ", "passage: ")),
        ("BAAI/bge-base-en-v1.5", ("Represent this sentence for searching relevant passages: ", "")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("", "")),
        (f"/hub/models--intfloat--e5-base-v2/snapshots/{'1c' * 20}", ("query: ", "passage: ")),
        ("me/code5-base", ("", "")),
        ("/", ("", "")),
    ],
)
def test_prefixes(name: str, expected: tuple[str, str]) -> None:
    assert prefixes(name) == expected


def test_the_prefix_is_part_of_what_is_encoded(encoder: Path) -> None:
    """The fixture's name has e5 in it."""
    tiny = Encoder(str(encoder))
    assert tiny.query_prefix == "query: "
    same = Passage("x", "vordak", "kelmok")
    assert not np.allclose(tiny.queries([contents(same)]), tiny.passages([same]), atol=1e-3)


def test_a_folder_keeps_its_encoder(folder: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["index", "build", "--corpus", folder.parent / "words.jsonl", "--to", folder, "--encoder", "another"]
    assert main([str(word) for word in command]) == 2
    assert "not 'another'; delete it" in capsys.readouterr().err


def test_a_folder_without_vectors(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text((folder / "about.json").read_text())
    with pytest.raises(RetrievalError, match=r"not a readable dense index.*--encoder MODEL"):
        open_retriever(str(tmp_path), rank="dense")
    with pytest.raises(ConfigurationError, match=r"encoder '.*' cannot be loaded"):
        Encoder(str(tmp_path))
