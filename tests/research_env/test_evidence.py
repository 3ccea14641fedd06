"""What an episode found, on an invented two-hop question."""

from __future__ import annotations

import json

import pytest

from research_env.evidence import Evidence
from research_env.types import Hop, Passage, Question

QUESTION = Question(
    id="q1",
    text="Where was the author of Amber Kesh born?",
    answers=("the Port of Velm", "Velm Harbour"),
    hops=2,
    decomposition=(Hop("Who wrote Amber Kesh?", "Bram Tovik", "p1"), Hop("Where was Bram Tovik born?", "Velm", "p2")),
    gold_passages=("p1", "p2"),
)
NOVEL = Passage("p1", "Amber Kesh", "Amber Kesh is a novel by Bram Tovik.")
AUTHOR = Passage("p2", "Bram Tovik", "Bram Tovik was born in Port of Velm, in spring.")
OTHER = Passage("p9", "Orlo", "Orlo is a river.")


def _about(*answers: str) -> Evidence:
    return Evidence(Question("q", "?", answers, 1))


def test_nothing_seen():
    evidence = Evidence(QUESTION)
    assert evidence.gold_found == ()
    assert [hop["found_at"] for hop in evidence.hops] == [None, None]
    assert not evidence.answer_in_context


def test_hops_know_the_first_search_that_found_them():
    evidence = Evidence(QUESTION)
    evidence.saw(1, [OTHER])
    evidence.saw(2, [OTHER, AUTHOR])
    evidence.saw(3, [NOVEL, AUTHOR])
    assert evidence.gold_found == ("p1", "p2")  # in the question's order
    assert evidence.hops == [
        {"question": "Who wrote Amber Kesh?", "answer": "Bram Tovik", "passage_id": "p1", "found_at": 3},
        {"question": "Where was Bram Tovik born?", "answer": "Velm", "passage_id": "p2", "found_at": 2},
    ]
    assert json.loads(json.dumps(evidence.hops)) == evidence.hops


def test_gold_passages_without_decomposition():
    evidence = Evidence(Question("q", "?", ("x",), 2, gold_passages=("p2", "p1", "p2")))
    evidence.saw(1, [NOVEL, OTHER])
    assert evidence.gold_found == ("p1",)
    assert evidence.hops == []


def test_one_passage_may_serve_two_hops():
    hops = (Hop("a?", "a", "p1"), Hop("b?", "b", "p1"))
    evidence = Evidence(Question("q", "?", ("b",), 2, decomposition=hops))
    evidence.saw(1, [NOVEL])
    assert [hop["found_at"] for hop in evidence.hops] == [1, 1]
    assert evidence.gold_found == ("p1",)


def test_an_unknown_gold_passage_is_never_found():
    evidence = Evidence(Question("q", "?", ("a",), 1, decomposition=(Hop("a?", "a", ""),)))
    evidence.saw(1, [Passage("", "t", "t")])
    assert evidence.gold_found == ()
    assert evidence.hops[0]["found_at"] is None


def test_answer_in_context_can_be_asked_at_any_time():
    evidence = Evidence(QUESTION)
    evidence.saw(1, [NOVEL, OTHER])
    assert not evidence.answer_in_context
    evidence.saw(2, [AUTHOR])
    assert evidence.answer_in_context
    evidence.saw(3, [OTHER])
    assert evidence.answer_in_context


@pytest.mark.parametrize(
    ("answer", "title", "text", "found"),
    [
        ("Velm", "Velm", "A town.", True),
        ("the velm!", "Town", "In VELM, a town.", True),
        ("Velm", "Town", "Velmish towns", False),  # whole words only
        ("Port Velm", "Port", "Velm", False),  # not across title and text
        ("The", "The", "the", False),  # nothing left of it
        ("yes", "Yes", "yes, no", False),
        ("no", "No", "no", False),
    ],
)
def test_answer_in_context(answer: str, title: str, text: str, found: bool):
    evidence = _about(answer)
    evidence.saw(1, [Passage("p", title, text)])
    assert evidence.answer_in_context is found
