"""Every seed of the learners: which questions are asked, and how each turn is sampled.

Pure functions of the run's seed, so that a run can be repeated. Nothing else in the learners computes a seed.

Reset seeds of training are in `[0, 2**31)` and those of evaluation in `[2**31, 2**32)`, so the two never meet, and
NumPy takes each of them. Whoever counts past the end of a half goes on at its start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learners.types import Play

_QUESTIONS = 1_000_003
"""Questions between the starts of two runs. It is prime: a size that divided it would give two runs one start."""
_HALF = 2**31
"""Reset seeds of training, and as many of evaluation."""
_TURNS = 1_000
"""Sampling seeds that belong to one episode."""


def first_question(seed: int) -> int:
    """Reset seed of the first question of a run with this seed.

    The environment has an order of its own; runs with neighbouring seeds begin 1,000,003 questions apart in it.
    """
    return seed * _QUESTIONS % _HALF


def warm_start(seed: int, number: int = 0) -> int:
    """Reset seed of episode `number`, from 0, that a warm start imitates: its questions are the first of training."""
    return (first_question(seed) + number) % _HALF


def evaluation_question(number: int) -> int:
    """Reset seed of question `number`, from 0, of an evaluation: the same for every run."""
    return _HALF + number % _HALF


def training_range(seed: int, questions: int) -> list[int]:
    """First and last reset seed of a training that asked so many questions; empty where it asked none.

    A last one below the first says that the run went on at 0.
    """
    first = first_question(seed)
    return [first, (first + questions - 1) % _HALF] if questions else []


def sampling(seed: int, step: int) -> int:
    """Where the sampling seeds of a step begin: a number in `[0, 2**31)`, hashed, so that steps lie far apart."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0]) >> 1


def training(seed: int, step: int, first: int, prompts: int, group_size: int, played: int = 0) -> list[Play]:
    """The episodes of a training step, group by group.

    A play keeps its sampling seed whichever worker it is given to.

    Args:
        seed: Of the run.
        step: From 0.
        first: Reset seed of the first question; see `first_question`. It may lie past the end of training's half.
        prompts: Questions, `first` to `first + prompts - 1`, each within training's half.
        group_size: Episodes of each question.
        played: Episodes that this step has begun already, where rejected groups are replaced: a multiple of
            `group_size`. Group numbers and sampling seeds go on from there.

    Returns:
        Sampling seeds are `sampling(seed, step) + 1_000 * n` for episode n of the step, so that the turns of an
        episode, which count up by one, have 1,000 seeds of their own. They are below `2**31 + 1_000 * episodes`.
    """
    start = sampling(seed, step)
    return [
        Play((first + (number - played) // group_size) % _HALF, number // group_size, start + number * _TURNS)
        for number in range(played, played + prompts * group_size)
    ]


def evaluation(seeds: Sequence[int]) -> list[Play]:
    """One episode for each reset seed, each a group of its own. Evaluation is greedy and reads no sampling seed; they
    are 0, 1,000, 2,000 and so on."""
    return [Play(seed=seed, group=number, sampling_seed=number * _TURNS) for number, seed in enumerate(seeds)]


def engine(seed: int, number: int) -> int:
    """Seed of the stream from which engine `number`, from 0, samples requests without a seed: `seed + number`."""
    return seed + number


def turn(sampling_seed: int, number: int) -> int:
    """Sampling seed of turn `number`, from 0, of an episode: `sampling_seed + number`."""
    return sampling_seed + number
