"""The random turns that an action space samples."""

from __future__ import annotations

import time

import numpy as np
import pytest

from research_env.protocols.base import Answer, Calls
from research_env.random_turns import RandomTurns
from tests.research_env.actions import PROTOCOL, queries, search


def turns(seed: int, *texts: str, count: int = 60) -> list:
    drawn = RandomTurns(PROTOCOL)
    drawn.start(texts[0])
    for text in texts[1:]:
        drawn.read(text)
    rng = np.random.default_rng(seed)
    parsed = [PROTOCOL.parse(drawn.sample(rng)) for _ in range(count)]
    assert all(turn.format_ok and not turn.cut for turn in parsed)
    return [turn.action for turn in parsed]


def test_the_first_turn_searches_for_a_name_of_the_question():
    asked = "Where was the author of Amber Kesh born?"
    firsts = [action for seed in range(20) for action in turns(seed, asked, count=1)]
    assert firsts == [search("Amber Kesh")] * 20


def test_answers_only_once_something_was_read_and_with_a_name_it_read():
    assert {type(action) for action in turns(0, "Who wrote Amber Kesh?")} == {Calls}
    actions = turns(0, "Who wrote Amber Kesh?", "Amber Kesh is by Bram Tovik. He was born in Lundor Quay.", count=200)
    answers = {action.text for action in actions if isinstance(action, Answer)}
    assert {"Bram Tovik", "Lundor Quay"} & answers
    assert answers <= {"Amber Kesh", "Bram Tovik", "Lundor Quay", "nothing"}
    assert {"Amber Kesh", "Bram Tovik", "Lundor Quay"} >= {query for query in queries(actions) if query != "nothing"}
    named = [query for query in queries(actions) if query != "nothing"]
    assert len(named) == len(set(named))  # none is searched for twice


@pytest.mark.parametrize("text", ["", "no name here", "?!", "\0\ud800", "Ünal Öz?", "北京", "A"])
def test_any_question_can_be_sampled_from(text):
    assert turns(0, text, text)


def test_a_new_question_forgets_the_old_one():
    drawn = RandomTurns(PROTOCOL)
    drawn.start("Who wrote Amber Kesh?")
    drawn.read("By Bram Tovik.")
    drawn.start("Who founded Vornak Press?")
    assert "Vornak Press" in drawn.sample(np.random.default_rng(0))


def test_megabytes_are_no_trouble():
    start = time.perf_counter()
    turns(0, "Who?", "Bram Tovik " * 100_000, count=2)
    assert time.perf_counter() - start < 10
