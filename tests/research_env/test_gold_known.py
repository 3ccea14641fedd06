"""Gold passages are known by their ids in the data set's own pool alone, wherever that is indexed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env import loading
from research_env.__main__ import main
from research_env.loading import DatasetKey
from research_env.types import Corpus, Hit, Passage
from tests.research_env.test_info import FIRST, MUSIQUE, answer, search

PASSAGES = list[dict[str, str]]


def play(**kwargs: Any) -> dict[str, Any]:
    """The last `info` of an episode that finds both gold passages of the question, if they are there."""
    env = gym.make(MUSIQUE, **kwargs)
    _, info = env.reset(options=FIRST)
    known = info["gold_known"]
    for turn in (search("Who founded Varn0a"), search("Who founded Varn0b"), answer("Varn0c")):
        *_, info = env.step(turn)
        assert info["gold_known"] is known
    return info


@pytest.fixture
def pool(musique_home: Path) -> PASSAGES:
    passages = loading.pool(DatasetKey("musique")).passages()
    return [{"id": p.id, "title": p.title, "text": p.text} for p in passages]


def write(path: Path, rows: PASSAGES) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_over_the_sets_own_passages_evidence_is_known(pool: PASSAGES, tmp_path: Path) -> None:
    """The pool itself; an index of it; a file of it, in another order."""
    folder = str(tmp_path / "index")
    assert main(["index", "build", "--corpus", "musique", "--to", folder]) == 0
    for corpus in ("pooled", folder, write(tmp_path / "pool.jsonl", pool[::-1])):
        info = play(corpus=corpus)
        assert info["gold_known"] is True
        assert {hop["found_at"] for hop in info["evidence"]} <= {1, 2}
        assert info["gold_found"] == [hop["passage_id"] for hop in info["evidence"]]


def test_over_nothing_nothing_is_found(pool: PASSAGES) -> None:
    info = play(corpus="none")
    assert (info["gold_known"], info["gold_found"]) == (True, [])
    assert [hop["found_at"] for hop in info["evidence"]] == [None, None]


@pytest.mark.parametrize("change", ["other ids", "one more", "another text"])
def test_over_another_corpus_it_is_none(change: str, pool: PASSAGES, tmp_path: Path) -> None:
    """Also where the same passages are shown under other ids."""
    rows = {
        "other ids": [{**row, "id": str(number)} for number, row in enumerate(pool)],
        "one more": [*pool, {"id": "x", "title": "Orlo", "text": "A river."}],
        "another text": [{**pool[0], "text": "Nothing."}, *pool[1:]],
    }[change]
    info = play(corpus=write(tmp_path / "wiki.jsonl", rows))
    assert (info["gold_known"], info["gold_found"], info["evidence"]) == (False, None, None)
    assert info["answer_in_context"] is True, "the text is there, whatever its id"
    assert (info["em"], info["f1"]) == (1.0, 1.0)


@pytest.mark.parametrize("own_hash", [True, False])
def test_a_retriever_says_by_its_hash_what_it_searches(
    own_hash: bool, pool: PASSAGES, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of the pool on a server is the pool; a server that does not say is not."""
    key = DatasetKey("musique")

    class Server:
        corpus = Corpus("server", len(pool), loading._content_hash(key) if own_hash else None)

        def outcomes(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
            return [[Hit(Passage(**row), 1.0) for row in pool if row["title"] in query] for query in queries]

    with monkeypatch.context() as patch:
        patch.setattr(loading, "retriever", lambda *_: Server())
        info = play(corpus="http://server:8000")
    assert info["gold_known"] is own_hash
    assert (info["gold_found"] is None) is not own_hash


def test_the_hash_of_a_pool_is_kept(pool: PASSAGES, musique_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loading._content_hash(DatasetKey("musique"))
    loading.forget()
    monkeypatch.setattr(loading, "from_pool", lambda own: pytest.fail("read again"))
    assert loading._content_hash(DatasetKey("musique")) == first


def test_playing_says_that_it_is_unknown(
    pool: PASSAGES, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "wiki.jsonl", [{**row, "id": str(number)} for number, row in enumerate(pool)])
    typed = iter(["search Varn0a", "answer x"])

    def read(prompt: str) -> str:
        if (line := next(typed, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", read)
    assert main(["play", "--env", MUSIQUE, "--env-kwargs", json.dumps({"corpus": corpus})]) == 0
    said = capsys.readouterr().out
    assert "unknown" in said
    assert "not found" not in said
