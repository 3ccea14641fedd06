"""A tiny policy with random weights, and trajectories as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.tiny.config import TinyConfig
from learners.tiny.model import make_model, make_tokenizer, save
from learners.types import Status, Trajectory, Turn
from tests.learners.doors import ENV, Doors

TEXTS = [
    f"Who founded the guild of {name}? <think> I look for {name}. </think> <search> {name} </search> <result> {name} "
    f"is a guild of the northern plain, founded by {name[::-1].title()}. </result> <answer> \\boxed{{{name}}} </answer>"
    for name in ("Varn Osta", "Kelmon Press", "Lundor Quay", "Bram Tovan", "Dex Junor", "Amber Marsh")
] * 20
TAGS = ["<think>", "</think>", "<search>", "</search>", "<result>", "</result>", "<answer>", "</answer>", "\\boxed{"]

MakeTrajectory = Callable[..., Trajectory]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """What the tiny policy's tokenizer was learned from."""
    return TEXTS


@pytest.fixture(scope="session")
def tags() -> list[str]:
    """Strings that are one token each."""
    return TAGS


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and model of a tiny Qwen2 in Hugging Face format: two layers of width 64, random weights."""
    folder = tmp_path_factory.mktemp("tiny-policy")
    config = TinyConfig(hidden=64, layers=2, heads=2, feed_forward=64, vocabulary=420)
    tokenizer = make_tokenizer(TEXTS, TAGS, config.vocabulary)
    model = make_model(config, tokenizer, max_length=256, seed=1)
    torch.manual_seed(1)
    with torch.no_grad():  # not the weights one trains from: with those, each token would repeat the one before
        for name, weight in model.model.layers.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.1 if "q_proj" in name or "k_proj" in name else 0.3)
            elif name.endswith("bias"):
                weight.zero_()
        model.model.norm.weight.fill_(0.15)
    save(model, tokenizer, folder)
    return folder


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Doors]]:
    """The environment of doors, registered and as new; there are no pauses before an episode is tried again."""
    monkeypatch.setattr("learners.rollout._PAUSE", 0.0)
    gym.register(ENV, entry_point=Doors)
    Doors.outages.clear()
    Doors.made = 0
    yield Doors
    del gym.registry[ENV]


@pytest.fixture(scope="session")
def make_trajectory() -> MakeTrajectory:
    """Makes a trajectory of random ids; `turns` says which spans were sampled, e.g. `[(2, 5)]` for ids 2, 3 and 4.

    The last turn has the reward.
    """

    def make(
        length: int, turns: list[tuple[int, int]], reward: float = 0.0, seed: int = 0, group: int = 0
    ) -> Trajectory:
        rng = np.random.default_rng([seed, length])
        mask = np.zeros(length, bool)
        for start, end in turns:
            mask[start:end] = True
        logprobs = np.where(mask, rng.uniform(-4, -1, length), 0.0).astype(np.float32)
        ids = rng.integers(1, 400, length, dtype=np.int32)
        rewards = [0.0] * (len(turns) - 1) + [reward]
        spans = tuple(Turn(start, end, r, (0,)) for (start, end), r in zip(turns, rewards, strict=False))
        return Trajectory(ids, mask, logprobs, spans, Status.TERMINATED, seed, group)

    return make
