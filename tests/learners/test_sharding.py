"""Several trainers: two ranks over gloo make the step that one rank makes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.multiprocessing

from learners.cluster import TrainerActor, deal
from learners.config import Config
from learners.grpo import load_config
from learners.packing import pack
from learners.trainer import Trainer
from learners.types import Batch, Trajectory

RATE, KL = 1e-3, 0.5


def configured(count: int) -> Config:
    return load_config(["--trainer.threads", "1", "--trainer.count", str(count)])


def rank_main(rank: int, address: str, model: str, shares: list[list[Batch]], tokens: int, folder: Path) -> None:
    """What one rank does: a step, a checkpoint, another step, and the first state again from the checkpoint."""
    actor = TrainerActor(configured(len(shares)), model, rank)
    actor.start(address)
    metrics = actor.call("step", shares[rank], tokens, RATE, KL)
    weights = actor.call("weights")
    actor.call("save", folder / "checkpoint", {"step": 1})
    actor.call("step", shares[rank], tokens, RATE, KL)
    actor.call("load", folder / "checkpoint")
    again = actor.call("weights")
    np.savez(folder / f"rank{rank}.npz", **weights)
    np.savez(folder / f"again{rank}.npz", **again)
    np.savez(folder / f"metrics{rank}.npz", **metrics)


def load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def test_two_ranks_make_the_step_of_one(
    tiny_folder: Path, make_trajectory: Callable[..., Trajectory], tmp_path: Path
) -> None:
    spans = {40: [(5, 20), (30, 40)], 25: [(10, 25)], 33: [(3, 20)]}
    trajectories = [make_trajectory(length, turns, seed=length) for length, turns in spans.items()]
    batches = pack(trajectories, [1.0, -0.5, -1.5], 42)
    assert len(batches) == 3, "an odd number, so that one rank's share must be filled up"
    tokens = sum(int(batch.mask.sum()) for batch in batches)
    one = Trainer(configured(1), str(tiny_folder))
    expected = one.step(batches, tokens, RATE, KL)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    shares = deal(batches, 2)
    torch.multiprocessing.spawn(rank_main, (address, str(tiny_folder), shares, tokens, tmp_path), nprocs=2)

    parts = [load(tmp_path / f"metrics{rank}.npz") for rank in range(2)]
    for name, value in expected.items():
        whole = parts[0][name] if name == "gradient_norm" else sum(part[name] for part in parts)
        assert whole == pytest.approx(value, rel=1e-3, abs=1e-6), name
    weights = load(tmp_path / "rank0.npz")
    assert set(weights) == set(one.weights())
    assert load(tmp_path / "rank1.npz") == {}, "the weights leave from rank 0 alone"
    for name, array in one.weights().items():
        # AdamW's first step is the rate times the gradient's sign: where rounding decides that, it decides all.
        assert np.mean(np.abs(weights[name] - array) > 0.01 * RATE) < 0.01, name
    for name, array in load(tmp_path / "again0.npz").items():
        np.testing.assert_array_equal(array, weights[name])
