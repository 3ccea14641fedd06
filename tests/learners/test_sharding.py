"""Several trainers: two ranks over gloo make the step that one rank makes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.multiprocessing

from learners.cluster import division
from learners.cluster.actors import TrainerActor
from learners.config import Config, load_config
from learners.errors import Fault
from learners.packing import deal, pack, pack_to_score
from learners.trainer import Trainer
from learners.types import Batch, Credit, Trajectory

RATE, COEFFICIENTS = 1e-3, {"kl": 0.5}
SCORES = frozenset({"old", "reference"})


def configured(count: int) -> Config:
    # Several ranks also compute activations again, which changes nothing.
    return load_config(["--trainer.threads", "1", "--trainer.count", str(count), *["--trainer.recompute"][: count - 1]])


def rank_main(
    rank: int, address: str, model: str, to_score: list[list[Batch]], batches: list[list[Batch]], folder: Path
) -> None:
    """What one rank does: scores, a step, a checkpoint, another step, and the first state again."""
    actor = TrainerActor(configured(len(batches)), model, rank)
    actor.start(address)
    for number, columns in enumerate(actor.call("score", to_score[rank], SCORES)):
        np.savez(folder / f"scores{rank}-{number}.npz", **columns)
    actor.call("save", folder / "checkpoint", {"step": 0})  # changes nothing
    metrics = actor.call("step", batches[rank], RATE, COEFFICIENTS)
    weights = actor.call("weights")
    actor.call("save", folder / "checkpoint", {"step": 1})
    actor.call("step", batches[rank], RATE, COEFFICIENTS)
    actor.call("load", folder / "checkpoint")
    again = actor.call("weights")
    # One rank's loss is not finite: no rank makes the update, and at the third in a row all stop.
    spoilt = [replace(b, advantages=b.advantages * np.float32("nan")) for b in batches[rank]] if rank else batches[rank]
    skipped = [actor.call("step", spoilt, RATE, COEFFICIENTS)["skipped"] for _ in range(2)]
    np.savez(folder / f"skipped{rank}.npz", *skipped, **actor.call("weights"))
    with pytest.raises(Fault, match="3 updates in a row"):
        actor.call("step", spoilt, RATE, COEFFICIENTS)
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
    one = Trainer(configured(1), str(tiny_folder))
    scores = division.score(trajectories, SCORES, 42, 1, lambda of_ranks: [one.score(of_ranks[0], SCORES)])
    tokens = sum(int(t.mask.sum()) for t in trajectories)
    batches = pack(
        trajectories,
        42,
        [Credit(np.full(len(t.ids), a, np.float32)) for t, a in zip(trajectories, (1.0, -0.5, -1.5), strict=True)],
        [(t.mask / tokens).astype(np.float32) for t in trajectories],
        {"reference": scores["reference"]},
    )
    assert len(batches) == 3, "an odd number, so that one rank's share must be filled up"
    expected = one.step(batches, RATE, COEFFICIENTS)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    to_score = deal(pack_to_score(trajectories, 42)[1], 2)
    arguments = (address, str(tiny_folder), to_score, deal(batches, 2), tmp_path)
    torch.multiprocessing.spawn(rank_main, arguments, nprocs=2)

    def run(of_ranks: list[list[Batch]]) -> list[list[division.Columns]]:
        return [[load(tmp_path / f"scores{rank}-{n}.npz") for n in range(len(b))] for rank, b in enumerate(of_ranks)]

    for name, columns in division.score(trajectories, SCORES, 42, 2, run).items():
        for ours, column in zip(columns, scores[name], strict=True):
            np.testing.assert_allclose(ours, column, atol=1e-4, err_msg=name)

    parts = [load(tmp_path / f"metrics{rank}.npz") for rank in range(2)]
    for name, value in expected.items():
        whole = parts[0][name] if name in division.OF_THE_WHOLE else sum(part[name] for part in parts)
        assert whole == pytest.approx(value, rel=1e-3, abs=1e-6), name
    weights = load(tmp_path / "rank0.npz")
    assert set(weights) == set(one.weights())
    assert load(tmp_path / "rank1.npz") == {}, "the weights leave from rank 0 alone"
    for name, array in one.weights().items():
        # AdamW's first step is the rate times the gradient's sign: where rounding decides that, it decides all.
        assert np.mean(np.abs(weights[name] - array) > 0.01 * RATE) < 0.01, name
    skipped = [load(tmp_path / f"skipped{rank}.npz") for rank in range(2)]
    assert [[each.pop("arr_0").item(), each.pop("arr_1").item()] for each in skipped] == [[1, 1], [1, 1]]
    assert set(skipped[0]) == set(weights)
    for name, array in skipped[0].items():
        np.testing.assert_array_equal(array, weights[name])
    for name, array in load(tmp_path / "again0.npz").items():
        np.testing.assert_array_equal(array, weights[name])
