"""EM, F1 and the rewards: by hand, by property, and against published per-item scores."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_env import names
from research_env.rewards import REWARDS, Outcome, exact_match, f1
from research_env.text import normalize_answer

ANSWERS = st.lists(
    st.text(max_size=20) | st.sampled_from(["yes", "no", "the cat", "a cat sat"]), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The U.S.  Navy", "us navy"),
        ("a-an-the", "aanthe"),  # punctuation goes first, so no article is left to remove
        ("An apple, a day!", "apple day"),
        ("Theatre", "theatre"),
        ("", ""),
        ("The", ""),
        ("1990–1995", "1990–1995"),  # only ASCII punctuation is deleted
        ("São\tPaulo\n", "são paulo"),
        ("\ud800", "\ud800"),
    ],
)
def test_normalize_answer(text: str, normal: str):
    assert normalize_answer(text) == normal


def test_exact_match():
    assert exact_match("the Beatles.", ["Queen", "Beatles"]) == 1.0
    assert exact_match("Beatles band", ["Beatles"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "golden", "score"),
    [
        ("Bram Tovik", ["Bram Tovik"], 1.0),
        ("Lockheed SR-71 Blackbird", ["Lockheed Corporation"], 0.4),  # P 1/3, R 1/2
        ("1993", ["September 13, 1993"], 0.5),  # P 1, R 1/3
        ("1993", ["1994", "September 13, 1993", "1993 AD"], 2 / 3),  # the best one: P 1, R 1/2
        ("bye bye bye", ["bye bye"], 0.8),  # multisets: P 2/3, R 1
        ("yes it is", ["yes"], 0.0),
        ("yes", ["yes it is"], 0.0),
        ("no", ["noanswer"], 0.0),
        ("No.", ["no"], 1.0),
        ("yes indeed", ["yes it is"], 0.4),  # neither side is a bare yes: P 1/2, R 1/3
        ("", ["Paris"], 0.0),
        ("the", ["a"], 0.0),  # both empty, and not the same text
    ],
)
def test_f1(prediction: str, golden: list[str], score: float):
    assert f1(prediction, golden) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("golden", ["A", "*", "---", "The The", "?!", "an", "$"])
def test_an_answer_of_which_normalisation_leaves_nothing_is_compared_as_it_is(golden: str):
    """Real rows of the data sets: a mark, a grade, a band."""
    for right in (golden, golden.lower(), f" {golden}\n", golden.upper()):
        assert (exact_match(right, [golden]), f1(right, [golden])) == (1.0, 1.0)
        assert (exact_match(right, ["Paris", golden]), f1(right, ["Paris", golden])) == (1.0, 1.0)
    for wrong in ("", "...", "the", f"{golden}.", f"{golden} Paris", "Paris"):
        assert (exact_match(wrong, [golden]), f1(wrong, [golden])) == (0.0, 0.0)
    assert f1("Paris in France", [golden, "Paris"]) == pytest.approx(0.5)


def test_white_space_is_collapsed_where_nothing_is_left():
    assert exact_match("the  the", ["The The"]) == f1("the \t the", ["The  The"]) == 1.0


@pytest.mark.parametrize("score", [exact_match, f1])
def test_golden_answers_must_be_a_list_with_something_in_it(score):
    with pytest.raises(TypeError, match=r"write \['Paris'\]"):
        score("Paris", "Paris")
    with pytest.raises(ValueError, match="at least one"):
        score("Paris", [])


@settings(deadline=None)
@given(st.text(max_size=20), ANSWERS)
def test_scores_are_bounded_and_agree(prediction: str, golden: list[str]):
    em, overlap = exact_match(prediction, golden), f1(prediction, golden)
    assert em in (0.0, 1.0)
    assert 0.0 <= overlap <= 1.0
    if em:
        assert overlap == 1.0
    assert overlap == max(f1(prediction, [answer]) for answer in golden)
    assert f1(prediction, tuple(reversed(golden))) == overlap


@pytest.mark.parametrize(
    ("outcome", "em", "f1_reward", "research"),
    [
        (Outcome("Bram Tovik", 1.0, 1.0, True, False), 1.0, 1.0, 1.0),
        (Outcome("Bram", 0.0, 2 / 3, True, False), 0.0, 2 / 3, 2 / 3),
        (Outcome("Paris", 0.0, 0.0, True, False), 0.0, 0.0, 0.1),
        (Outcome("Bram Tovik", 1.0, 1.0, False, False), 1.0, 1.0, 0.0),
        (Outcome("Bram Tovik", 1.0, 1.0, True, True), 1.0, 1.0, 0.0),
        (Outcome(None, 0.0, 0.0, True, False), 0.0, 0.0, 0.0),
    ],
)
def test_rewards(outcome: Outcome, em: float, f1_reward: float, research: float):
    assert {name: names.load(REWARDS, "reward", name)(outcome) for name in REWARDS} == {
        "em": em,
        "f1": f1_reward,
        "research": research,
    }


@pytest.mark.real_data
def test_published_scores_are_reproduced(real_data: Path):
    with gzip.open(real_data / "scoring" / "em_f1.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 2219
    for row in rows:
        assert exact_match(row["prediction"], row["golden_answers"]) == row["em"], row
        assert f1(row["prediction"], row["golden_answers"]) == pytest.approx(row["f1"], abs=1e-12), row
