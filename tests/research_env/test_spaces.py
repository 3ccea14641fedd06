"""The space of texts, and the random turns it samples."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_env.spaces import Prose


@given(st.text(st.characters()))
def test_every_text_is_contained(text):
    assert Prose().contains(text)
    assert text in Prose(max_length=len(text))
    assert text + "x" not in Prose(max_length=len(text))


@pytest.mark.parametrize("value", [None, b"text", 3, ["text"], np.array(["text"])])
def test_nothing_else_is(value):
    assert not Prose().contains(value)


def test_equality_and_repr():
    assert Prose() == Prose(sampler=lambda rng: "x")
    assert Prose(5) == Prose(max_length=5)
    assert Prose(5) != Prose(6)
    assert Prose() != "Prose()"
    assert (repr(Prose()), repr(Prose(5))) == ("Prose()", "Prose(5)")
    assert copy.deepcopy(Prose(5)) == pickle.loads(pickle.dumps(Prose(5, sampler=str))) == Prose(5)


def test_samples_come_from_its_own_generator():
    space = Prose(sampler=lambda rng: str(rng.integers(1_000_000)), seed=3)
    first = [space.sample() for _ in range(3)]
    space.seed(3)
    np.random.seed(0)
    assert [space.sample() for _ in range(3)] == first
    assert Prose().sample() == ""
    assert not Prose().is_np_flattenable


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Prose(5, seed=1).sample()


def test_the_space_alone_brings_its_shared_memory():
    """In a process that has imported nothing else of ours."""
    code = (
        "from gymnasium.vector import utils\n"
        "from research_env.spaces import Prose\n"
        "memory = utils.create_shared_memory(Prose(), 2)\n"
        "utils.write_to_shared_memory(Prose(), 1, 'é', memory)\n"
        "assert tuple(utils.read_from_shared_memory(Prose(), memory, 2)) == ('', 'é')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
