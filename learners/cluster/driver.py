"""The actors of a run under Ray, seen from the process of the loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray

from learners import names
from learners.cluster import division, placement
from learners.cluster.actors import RolloutActor, TrainerActor
from learners.cluster.failures import CHANGING, UNSURE, finished, get
from learners.config import Config
from learners.errors import ActorFault, Fault
from learners.packing import deal
from learners.rollout import Rollout
from learners.signals import stop_at_sigterm
from learners.types import Batch, Play, Trajectory

_PATIENCE = 20.0
"""Seconds that closing waits for engines and environments."""


class RayCluster:
    """See `Cluster`. With `RAY_ADDRESS` it joins a cluster of Ray's; without, it starts one on this machine."""

    def __init__(
        self, config: Config, model: str, trainers: bool = True, reference: str | None = None
    ) -> None:  # fmt: skip
        self.config = config
        self._workers: list[Any] = []
        self._trainers: list[Any] = []
        self._unsure = False
        """Whether a trainer has failed in the middle of something, or waits for one that has."""
        self._model, self._version = model, 0
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # By default Ray hides every GPU from actors that ask for none, and warns that this will change.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Without an address Ray would join any cluster that runs on this machine, somebody else's too.
        address = os.environ.get("RAY_ADDRESS") or "local"
        try:
            ray.init(
                address=address, include_dashboard=False, logging_level=logging.ERROR,
                log_to_driver=bool(os.environ.get("RESEARCH_DEBUG")),
            )  # fmt: skip
        except (ConnectionError, ValueError) as error:
            raise Fault(f"Ray cannot start with RAY_ADDRESS={address}: {names.flat(error)}") from error
        except SystemExit:  # Ray's own handler of SIGTERM raises it, which Ray sets while it starts
            raise KeyboardInterrupt from None
        stop_at_sigterm()
        try:
            self._start(model, trainers, reference)
        except BaseException:
            self.close()
            raise

    def _start(self, model: str, trainers: bool, reference: str | None) -> None:
        config = self.config
        self._workers = [self._worker(number) for number in range(config.engine.count)]
        # Engines and trainers start side by side: each takes many seconds.
        starting = {who: worker.start.remote() for who, worker in self._engines()}
        if trainers:
            trainer = ray.remote(_RayTrainerActor).options(**placement.trainer_options(config))
            self._trainers = [trainer.remote(config, model, rank, reference) for rank in range(config.trainer.count)]
            (rendezvous,) = get({"trainer 0": self._trainers[0].own_address.remote()})
            starting |= {who: trainer.start.remote(rendezvous) for who, trainer in self._ranks()}
        get(starting)

    def _worker(self, number: int) -> Any:
        rollout = ray.remote(RolloutActor).options(**placement.engine_options(self.config))
        return rollout.remote(self.config, self._model, number)

    def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        shares = division.plays_of_workers(plays, len(self._workers))
        parts = get(
            {
                who: worker.collect.remote(share, dict(env_kwargs), temperature)
                for (who, worker), share in zip(self._engines(), shares, strict=True)
            }
        )
        for number, part in enumerate(parts):
            if part.worn:
                self._replace(number)
        return division.merge_rollouts(parts)

    def _replace(self, number: int) -> None:
        """Put a new actor in the place of one of which too many threads are lost; nothing else takes them back."""
        _end([self._workers[number]])
        ray.kill(self._workers[number])
        self._workers[number] = worker = self._worker(number)
        get({f"engine {number}": worker.start.remote()})
        if self._trainers:
            gathered = {who: trainer.call.remote("weights") for who, trainer in self._ranks()}
            get(
                {f"engine {number}": worker.update_weights.remote(gathered["trainer 0"], self._version)}, after=gathered
            )

    def score(self, trajectories: Sequence[Trajectory], wanted: frozenset[str]) -> dict[str, list[np.ndarray]]:
        def run(of_ranks: list[list[Batch]]) -> list[list[division.Columns]]:
            return self._on_ranks("score", [(batches, wanted) for batches in of_ranks])

        return division.score(trajectories, wanted, self.config.trainer.max_batch_tokens, len(self._trainers), run)

    def step(
        self, batches: Sequence[Batch], learning_rate: float, coefficients: Mapping[str, float]
    ) -> dict[str, float]:
        dealt = deal(batches, len(self._trainers))
        return division.merge_metrics(
            self._on_ranks("step", [(share, learning_rate, dict(coefficients)) for share in dealt])
        )

    def publish(self, version: int) -> None:
        self._version = version
        # Every rank takes part in gathering the weights. They are one copy in the object store, and none on disk.
        gathered = {who: trainer.call.remote("weights") for who, trainer in self._ranks()}
        weights = gathered["trainer 0"]
        sent = {who: worker.update_weights.remote(weights, version) for who, worker in self._engines()}
        get(sent, after=gathered)

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        if self._unsure:
            raise Fault(UNSURE)
        # Actors run in folders of their own. On several machines all of them must see this one.
        self._on_ranks("save", [(folder.resolve(), state)] * len(self._trainers))

    def load(self, folder: Path) -> None:
        self._on_ranks("load", [(folder.resolve(),)] * len(self._trainers))

    def _on_ranks(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of `Trainer` on every rank, each with its own arguments."""
        calls = {who: t.call.remote(method, *args) for (who, t), args in zip(self._ranks(), arguments, strict=True)}
        try:
            return get(calls)
        except Fault as fault:
            # A rank that waits for another in the middle of something would let `save` wait as well.
            self._unsure |= not finished(calls) or (method in CHANGING and isinstance(fault, ActorFault))
            raise

    def _engines(self) -> list[tuple[str, Any]]:
        return [(f"engine {number}", worker) for number, worker in enumerate(self._workers)]

    def _ranks(self) -> list[tuple[str, Any]]:
        return [(f"trainer {rank}", trainer) for rank, trainer in enumerate(self._trainers)]

    def close(self) -> None:
        """Stop engines, then Ray."""
        _end(self._workers)
        self._workers, self._trainers = [], []
        ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(workers: Sequence[Any]) -> None:
    """Close workers. An engine that hangs, or whose actor has died, must not keep Ray from ending."""
    closing = [worker.close.remote() for worker in workers]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=_PATIENCE)


class _RayTrainerActor(TrainerActor):
    def own_address(self) -> str:
        """`address` on the machine that Ray has put this actor on."""
        return self.address(ray.util.get_node_ip_address())
