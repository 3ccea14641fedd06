"""The order of the questions, and walks through it that stay apart."""

from __future__ import annotations

import pytest

from research_env.order import distance, jump, place_of, spread

SIZES = [1, 2, 3, 7, 10, 12, 89, 97, 100, 144, 216, 1000, 5040, 19_938]


def apart(step: int, size: int, walks: int) -> int:
    """How many questions each of so many walks from neighbouring places has before one is asked again."""
    number = 1
    while min(number * step % size, -number * step % size) >= walks:
        number += 1
    return number


@pytest.mark.parametrize("size", SIZES)
def test_spread_is_a_bijection_whose_neighbours_lie_apart(size: int) -> None:
    order = [spread(position, size) for position in range(size)]
    assert sorted(order) == list(range(size))
    assert [place_of(index, size) for index in order] == list(range(size))
    if size in (97, 5040, 19_938):
        eighths = [0] * 8
        for place in order[: size // 4]:
            eighths[place * 8 // size] += 1
        assert max(eighths) - min(eighths) <= 4


@pytest.mark.parametrize("size", SIZES)
def test_one_walk_takes_every_question_once(size: int) -> None:
    assert len({number * jump(size) % size for number in range(size)}) == size


@pytest.mark.parametrize("size", [89, 97, 100, 144, 216, 1000, 5040, 19_938, 20_000])
def test_a_walk_is_a_fair_sample_of_the_file(size: int) -> None:
    """Also where the golden section of the golden section would be a single step."""
    tenths = [0] * 10
    for number in range(count := size // 2):
        tenths[spread(number * jump(size) % size, size) * 10 // size] += 1
    assert max(tenths) - min(tenths) <= max(5, 0.04 * count)


@pytest.mark.parametrize("size", SIZES)
def test_distance_is_what_it_says(size: int) -> None:
    for step in {1, 2, jump(size), size // 2, size - 1} & set(range(1, size)):
        ends = [(m, min(m * step % size, -m * step % size)) for m in range(1, size)]
        assert distance(step, size) == pytest.approx(min(m * d / size for m, d in ends), abs=1e-12)


@pytest.mark.parametrize(
    ("size", "walks", "least"),
    [
        (12, 2, 4), (20, 2, 8), (100, 2, 25), (100, 4, 15), (1000, 16, 20), (2584, 4, 250), (6000, 4, 700),
        (12_000, 16, 500), (19_938, 16, 700), (19_938, 64, 100), (20_000, 4, 1500), (90_447, 64, 700),
    ],
)  # fmt: skip
def test_walks_stay_apart_for_a_good_part_of_the_questions(size: int, walks: int, least: int) -> None:
    assert apart(jump(size), size, walks) >= least


@pytest.mark.parametrize("size", range(5, 101))
def test_two_walks_through_few_questions_stay_apart_for_a_sixth_of_them(size: int) -> None:
    """No order gives more than a half."""
    assert apart(jump(size), size, 2) >= size / 6


def test_no_size_has_a_bad_jump() -> None:
    found = [distance(jump(size), size) for size in range(5, 1600)]
    assert min(found) > 0.16
    assert sum(each > 0.2 for each in found) >= 0.99 * len(found)
