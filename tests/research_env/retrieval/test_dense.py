"""Vectors: a tiny encoder made on the spot, the embedded index, fusion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_env.__main__ import main
from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, ResearchError
from research_env.retrieval import open_retriever
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions
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
    tiny = Encoder(EncoderOptions(str(encoder)))
    queries = [contents(passages[4]), "vordak kelmok", "gespon"]
    similarity = tiny.queries(queries) @ tiny.passages(passages).T
    found = open_retriever(str(folder), rank="dense").search(queries, 4)
    for line, hits in zip(similarity, found, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(sorted(line, reverse=True)[:4], abs=1e-5)
        assert [hit.passage for hit in hits] == [passages[i] for i in np.argsort(-line)[:4]]


def test_vectors_have_length_one_and_any_text_has_one(encoder: Path) -> None:
    vectors = Encoder(EncoderOptions(str(encoder))).queries(["vordak", "", "\ud800 \0", "x " * 20_000])
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


def test_a_folder_keeps_its_encoder(folder: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["index", "build", "--corpus", folder.parent / "words.jsonl", "--to", folder, "--encoder", "another"]
    assert main([str(word) for word in command]) == 2
    assert "not 'another'; delete it" in capsys.readouterr().err


def test_a_folder_without_vectors(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text((folder / "about.json").read_text())
    for rank in ("dense", "hybrid"):
        with pytest.raises(ConfigurationError, match=rf"rank='{rank}' needs vectors, .* add them: .*--to {tmp_path}"):
            open_retriever(str(tmp_path), rank=rank)


def test_vectors_in_the_format_of_earlier_versions(folder: Path, tmp_path: Path) -> None:
    """Faiss's own file, and no prompts: the model's name decides, as it did then."""
    import faiss

    expected = open_retriever(str(folder), rank="dense").search(["vordak kelmok"], 4)
    old = tmp_path / "index"
    shutil.copytree(folder, old)
    about = json.loads((old / "dense" / "about.json").read_text())
    vectors = np.fromfile(old / "dense" / "vectors.f32", np.float32).reshape(-1, about["dims"])
    index = faiss.IndexFlatIP(about["dims"])
    index.add(vectors)
    faiss.write_index(index, str(old / "dense" / "vectors.faiss"))
    (old / "dense" / "vectors.f32").unlink()
    (old / "dense" / "about.json").write_text(json.dumps({"corpus": about["corpus"], "encoder": about["encoder"]}))
    found = open_retriever(str(old), rank="dense").search(["vordak kelmok"], 4)
    assert [hit.passage for hit in found[0]] == [hit.passage for hit in expected[0]]
    assert [hit.score for hit in found[0]] == pytest.approx([hit.score for hit in expected[0]], abs=1e-5)
    assert main(["index", "verify", str(old)]) == 0


@pytest.mark.parametrize("damage", ["vectors.f32", "offsets.npy", "passages.jsonl", "about.json"])
def test_damaged_vectors_are_named(folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(folder, tmp_path / "index")
    (tmp_path / "index" / "dense" / damage).write_bytes(b"")
    with pytest.raises(ResearchError, match="delete it and build it again"):
        open_retriever(str(tmp_path / "index"), rank="dense")
