"""The mask lies exactly on what the policy sampled; nothing is re-encoded, lost or moved."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.transcript import Transcript
from learners.types import Completion, Status, Turn

ids = st.lists(st.integers(0, 150_000), max_size=6)
logprobs = st.floats(-20, 0, width=32)
turns = st.lists(st.tuples(st.lists(st.tuples(st.integers(0, 150_000), logprobs), max_size=6), ids), max_size=5)


def test_an_episode_of_two_turns() -> None:
    transcript = Transcript([9, 8])
    transcript.act(Completion([5, 17, 2], [-0.1, -1.2, 0.0], "stop", 3), -0.25, {"searches": 1})
    transcript.observe([7, 7])
    transcript.act(Completion([4], [-0.5], "length", 4), 1.0, {"em": 1.0})
    trajectory = transcript.finish(status=Status.TERMINATED, seed=6, group=2, info={"em": 1.0}, text=(("prompt", "x"),))
    assert trajectory.ids.tolist() == [9, 8, 5, 17, 2, 7, 7, 4]
    assert trajectory.mask.tolist() == [False, False, True, True, True, False, False, True]
    np.testing.assert_allclose(trajectory.logprobs, [0, 0, -0.1, -1.2, 0.0, 0, 0, -0.5])
    assert trajectory.turns == (Turn(2, 5, -0.25, (3,), {"searches": 1}), Turn(7, 8, 1.0, (4,), {"em": 1.0}))
    assert (trajectory.reward, trajectory.versions) == (0.75, (3, 4))
    assert (trajectory.status, trajectory.seed, trajectory.group) == ("terminated", 6, 2)
    assert (trajectory.info, trajectory.text) == ({"em": 1.0}, (("prompt", "x"),))
    assert (trajectory.ids.dtype, trajectory.mask.dtype, trajectory.logprobs.dtype) == (np.int32, bool, np.float32)


def test_a_turn_without_reward_and_info() -> None:
    """As the warm start writes it, which knows of neither."""
    transcript = Transcript([9])
    transcript.act(Completion([5], [0.0], "stop", 0))
    trajectory = transcript.finish(status=Status.TERMINATED, seed=0)
    assert trajectory.turns == (Turn(1, 2, 0.0, (0,), {}),)
    assert (trajectory.reward, trajectory.group, trajectory.info, trajectory.text) == (0.0, 0, {}, ())


@given(ids, turns)
def test_the_mask_is_exactly_on_the_sampled_tokens(
    prompt: list[int], episode: list[tuple[list[tuple[int, float]], list[int]]]
) -> None:
    """Reading the masked tokens gives back the completions, reading the others what was said to the policy."""
    transcript = Transcript(prompt)
    for version, (completion, observation) in enumerate(episode):
        transcript.act(Completion([i for i, _ in completion], [p for _, p in completion], "stop", version))
        transcript.observe(observation)
    trajectory = transcript.finish(status=Status.TERMINATED, seed=0)
    sampled = [pair for completion, _ in episode for pair in completion]
    said = prompt + [i for _, observation in episode for i in observation]
    assert trajectory.ids[trajectory.mask].tolist() == [i for i, _ in sampled]
    assert trajectory.logprobs[trajectory.mask].tolist() == [p for _, p in sampled]
    assert trajectory.ids[~trajectory.mask].tolist() == said
    assert not trajectory.logprobs[~trajectory.mask].any()
    assert len(trajectory.ids) == len(trajectory.mask) == len(trajectory.logprobs) == len(transcript)
    assert trajectory.versions == tuple(range(len(episode)))
    spans = [trajectory.ids[turn.start : turn.stop].tolist() for turn in trajectory.turns]
    assert spans == [[i for i, _ in completion] for completion, _ in episode]


def test_a_prompt_is_copied() -> None:
    """The engine is handed the ids of the transcript, and the caller keeps its own."""
    prompt = [1, 2]
    transcript = Transcript(prompt)
    transcript.observe([3])
    assert prompt == [1, 2]
    assert transcript.ids == [1, 2, 3]


def test_a_trajectory_is_frozen() -> None:
    trajectory = Transcript([1]).finish(status=Status.LENGTH, seed=0)
    with pytest.raises(FrozenInstanceError):
        trajectory.status = Status.TERMINATED  # type: ignore[misc]
