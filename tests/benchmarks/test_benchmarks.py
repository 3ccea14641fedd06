"""The benchmarks run and count correctly; their numbers are not tested."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from benchmarks import comparison, environment, retrieval


def test_environment_times_every_step_and_takes_retrieval_off():
    times = environment.measure("ReSearch-Synthetic-v0", 6, hops=[2])
    assert {kind: len(values) for kind, values in times.items()} == {
        "search": 12,
        "answer": 6,
        "retrieval": 12,
        "whole": 18,
    }
    assert all((values > 0).all() for values in times.values())


def test_recall_by_hand():
    questions = [
        {"dataset": "a", "gold_passages": ["1", "2"]},
        {"dataset": "a", "gold_passages": ["3"]},
        {"dataset": "b", "gold_passages": ["4"]},
    ]
    found = [["1", "x", "x", "x", "x", "2"], ["3"], []]
    table = retrieval.recall(found, questions)
    assert list(table) == ["a", "b", "all"]
    assert table["a"] == [2, 0.75, 1.0, 1.0]
    assert table["b"] == [1, 0.0, 0.0, 0.0]
    assert table["all"] == pytest.approx([3, 0.5, 2 / 3, 2 / 3])


def test_retrieval_prints_both_engines(tmp_path, monkeypatch, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "recall").mkdir()
    rows = [{"id": str(i), "contents": f'"Vornak {i}"\nThe guild of Kelmon{i} in Orlo.'} for i in range(30)]
    with gzip.open(tmp_path / "corpus" / "wiki_pool.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    asked = {"dataset": "own", "question": "Where is Kelmon7?", "gold_passages": ["7"]}
    (tmp_path / "recall" / "questions.jsonl").write_text(json.dumps(asked) + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["retrieval", "--data", str(tmp_path)])
    assert retrieval.main() == 0
    shown = capsys.readouterr().out
    assert "1 queries over 30 passages" in shown
    assert shown.count("own") == 2
    assert shown.count("1.000") == 14


def test_overlap_by_hand():
    reference = [["1", "2", "3", "4", "5", "6"], ["1"], []]
    assert retrieval.overlap(reference, reference) == 1.0
    assert retrieval.overlap([["1", "2", "x", "y", "z", "3"], [], []], reference) == pytest.approx((0.4 + 0 + 1) / 3)


def test_retrieval_without_data_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["retrieval", "--data", str(tmp_path)])
    assert retrieval.main() == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_failed_search_and_a_passage_that_spells_the_answer():
    found = comparison.research_gym()
    assert found.earned == "0"
    assert found.shown.startswith("nothing: RetrievalUnavailable is raised (http://127.0.0.1:")
