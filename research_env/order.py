"""The order in which questions are asked: fixed, well mixed, and one that several walks can share.

Places 0 … N-1 of the order are the N questions. `reset(seed=s)` takes place `s % N`; a `reset()` without a seed goes on
from the place before by `jump(N)` places, or by the keyword argument `stride`.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

_GOLDEN = 0.6180339887
_NEAR = 256  # numbers on each side of the golden section that `jump` chooses from


def spread(place: int, size: int) -> int:
    """Index of the question at a place, out of `size`: any run of neighbouring places is a fair sample of the file.

    Steps by the golden section of `size`: a bijection, and balanced over whatever the file is sorted by.
    """
    return place * _step(size) % size


def place_of(index: int, size: int) -> int:
    """The place of a question: the inverse of `spread`."""
    return index * pow(_step(size), -1, size) % size


@lru_cache
def _step(size: int) -> int:
    step = max(1, round(size * _GOLDEN))
    # A step that shares a divisor with `size` would reach only some of the questions.
    while gcd(step, size) != 1:
        step += 1
    return step


@lru_cache
def jump(size: int) -> int:
    """How many places a reset without a seed goes on: near the golden section of `size`, and coprime to it.

    Coprime, so that one walk takes all `size` questions before one comes again. Walks that begin at n neighbouring
    places ask different questions until one of them has gone on m times, where m is the first number of jumps that
    ends less than n places from where it began. As m jumps end at least `q * size / m` places away, q being
    `distance(jump, size)`, each walk has at least `q * size / (n - 1)` questions that no other walk has asked. No order
    at all can give more than `size / n`. The golden section itself, which is no whole number, has a q of 0.45; rounded
    and made coprime it has 0.01 for some sizes, and for others it steps through the file itself in order. So one is
    taken of the numbers near it: with a q of 0.22 before all else, then one whose way through the file is mixed, then
    the largest q. From 5 questions on, q is above 0.16; it is below 0.2 for one size in a hundred.
    """
    golden, step = round(size * _GOLDEN), _step(size)
    near = range(max(1, golden - _NEAR), min(size - 1, golden + _NEAR) + 1)
    coprime = [number for number in near if gcd(number, size) == 1]

    def worth(number: int) -> tuple[float, float, float]:
        apart, mixed = distance(number, size), distance(number * step % size, size)
        # A tenth is mixed well. Walks that stay apart count first: for few questions often no number has both.
        return min(apart, 0.22), min(mixed, 0.1), apart

    return max(coprime, key=worth, default=1)


def distance(step: int, size: int) -> float:
    """The smallest `m * d / size` over m = 1 … size-1, where d is how far m steps end from the beginning, on a ring.

    Euclid's algorithm passes through those m for which d is smaller than for any before: the others need no look.
    """
    smallest = 1.0
    m_before, m, d_before, d = 0, 1, size, step
    while m < size:
        smallest = min(smallest, m * d / size)
        if not d:
            break
        times = d_before // d
        m_before, m, d_before, d = m, m_before + times * m, d, d_before - times * d
    return smallest
