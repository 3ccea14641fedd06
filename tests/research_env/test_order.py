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


@pytest.mark.parametrize("walks", [2, 4, 16, 64])
@pytest.mark.parametrize("size", [7, 10, 100, 216, 1000, 2584, 5040, 19_938, 20_000, 90_447])
def test_walks_stay_apart_as_long_as_the_bound_says(size: int, walks: int) -> None:
    least = distance(jump(size), size) * size / (walks - 1)
    assert least <= apart(jump(size), size, walks) <= max(1, -(-size // walks))


def test_the_bound_is_a_tenth_of_what_is_possible_at_least_for_nearly_every_size() -> None:
    found = [distance(jump(size), size) for size in range(100, 1600)]
    assert sum(each > 0.1 for each in found) >= 0.99 * len(found)
    assert sorted(found)[len(found) // 2] > 0.18
