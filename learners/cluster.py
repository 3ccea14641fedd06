"""Ray actors: rollout workers (each an engine and its environments) and trainers, and where they are placed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from learners.config import Config
from learners.engines import ENGINES
from learners.environment import EnvironmentFault
from learners.rollout import Limits, Rollout, Worker
from learners.types import Batch, Trajectory


def _environment(threads: int) -> dict[str, str]:
    """Environment variables of an actor that computes: its share of threads, and none of them spinning while idle.

    Engine and trainer take turns on the same cores; a thread that spins while it waits would slow the other down
    five to ten times.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


class RolloutActor:
    """A rollout worker as a Ray actor: whole episodes cross its boundary, never single turns."""

    def __init__(self, config: Config, model: str, number: int) -> None:
        self._config, self._model, self._number = config, model, number

    async def start(self) -> None:
        """Start the engine; returns when it can generate."""
        from transformers import AutoTokenizer

        config = self._config
        kind = ENGINES.get(config.engine.kind, config.engine.kind)
        module, name = kind.split(":")
        engine = getattr(import_module(module), name)(config.engine, self._model, seed=config.seed + self._number)
        self._worker = Worker(
            engine, AutoTokenizer.from_pretrained(self._model), config.environment().id,
            Limits(config.engine.max_length, config.max_turn_tokens),
            concurrency=config.engine.max_sequences * 2, chat=config.chat,
            max_retries=config.max_retries, search_cost=config.search_cost,
        )  # fmt: skip

    async def collect(self, *args: Any) -> Rollout:
        """See `Worker.collect`."""
        return await self._worker.collect(*args)

    async def update_weights(self, weights: dict[str, np.ndarray], version: int) -> None:
        """See `Engine.update_weights`."""
        await self._worker.engine.update_weights(weights, version)

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._worker.engine.close()


class TrainerActor:
    """A trainer rank as a Ray actor."""

    def __init__(self, config: Config, model: str, rank: int) -> None:
        self._config, self._model, self._rank = config, model, rank

    def address(self) -> str:
        """Where the other ranks find this one."""
        return f"tcp://{ray.util.get_node_ip_address()}:{_free_port()}"

    def start(self, rendezvous: str) -> None:
        """Meet the other ranks and load the policy."""
        config = self._config
        if config.trainer.count > 1:
            import torch.distributed

            backend = "nccl" if config.trainer.device == "cuda" else "gloo"
            torch.distributed.init_process_group(
                backend, init_method=rendezvous, rank=self._rank, world_size=config.trainer.count
            )
        from learners.trainer import Trainer

        self._trainer = Trainer(config, self._model, self._rank)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of `Trainer`."""
        return getattr(self._trainer, method)(*args)


class Cluster:
    """The actors of a run, as plain functions. Use it as a context manager: leaving it leaves no process behind."""

    def __init__(self, config: Config, model: str, trainers: bool = True) -> None:
        self.config = config
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, logging_level=logging.ERROR,
            log_to_driver=bool(os.environ.get("RESEARCH_DEBUG")),
        )  # fmt: skip
        try:
            self._start(model, trainers)
        except BaseException:
            self.close()
            raise

    def _start(self, model: str, trainers: bool) -> None:
        config = self.config
        gpus = {"cpu": 0, "cuda": config.engine.tensor_parallel}[config.engine.device]
        # Threads are shared between engine and trainer, who take turns; so CPUs are not reserved.
        rollout = ray.remote(RolloutActor).options(
            num_cpus=0, num_gpus=gpus, max_concurrency=16,
            runtime_env={"env_vars": _environment(config.engine.threads)},
        )  # fmt: skip
        self.workers = [rollout.remote(config, model, number) for number in range(config.engine.count)]
        starting = [worker.start.remote() for worker in self.workers]
        self.trainers = []
        if trainers:
            trainer = ray.remote(TrainerActor).options(
                num_cpus=0, num_gpus=float(config.trainer.device == "cuda"),
                runtime_env={"env_vars": _environment(config.trainer.threads)},
            )  # fmt: skip
            self.trainers = [trainer.remote(config, model, rank) for rank in range(config.trainer.count)]
            rendezvous = ray.get(self.trainers[0].address.remote())
            starting += [trainer.start.remote(rendezvous) for trainer in self.trainers]
        ray.get(starting)

    def collect(self, seeds: Sequence[int], env_kwargs: dict[str, Any], temperature: float, seed: int) -> Rollout:
        """Play an episode for each seed, spread over the workers; a group stays with one worker's cache."""
        count = len(self.workers)
        shares = [list(seeds[i * len(seeds) // count : (i + 1) * len(seeds) // count]) for i in range(count)]
        parts = _get(
            [
                worker.collect.remote(share, env_kwargs, temperature, seed + 10**7 * number)
                for number, (worker, share) in enumerate(zip(self.workers, shares, strict=True))
            ]
        )
        trajectories: list[Trajectory] = [t for part in parts for t in part.trajectories]
        return Rollout(trajectories, sum(p.retried for p in parts), sum(p.dropped for p in parts))

    def step(self, batches: list[Batch], *args: Any) -> dict[str, float]:
        """One optimiser step over all trainers."""
        shares = deal(batches, len(self.trainers))
        parts = ray.get([t.call.remote("step", share, *args) for t, share in zip(self.trainers, shares, strict=True)])
        norm = parts[0]["gradient_norm"]
        return {name: sum(part[name] for part in parts) for name in parts[0]} | {"gradient_norm": norm}

    def publish(self, version: int) -> None:
        """Send the trainers' weights to every engine: one copy in the object store, none on disk."""
        weights, *_ = [trainer.call.remote("weights") for trainer in self.trainers]
        ray.get([worker.update_weights.remote(weights, version) for worker in self.workers])

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """See `Trainer.save`. Trainers run in folders of their own; on several machines all must see this one."""
        ray.get([trainer.call.remote("save", folder.resolve(), state) for trainer in self.trainers])

    def load(self, folder: Path) -> None:
        """See `Trainer.load`."""
        ray.get([trainer.call.remote("load", folder.resolve()) for trainer in self.trainers])

    def close(self) -> None:
        """Stop engines, then Ray."""
        closing = [worker.close.remote() for worker in getattr(self, "workers", [])]
        ray.wait(closing, num_returns=len(closing), timeout=10) if closing else None
        ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _get(calls: list[Any]) -> list[Any]:
    """`ray.get`; an environment's fault comes as itself, where Ray would raise the worker's traceback."""
    try:
        return ray.get(calls)
    except RayTaskError as error:
        if isinstance(error.cause, EnvironmentFault):
            raise error.cause from None
        raise


def deal(batches: Sequence[Batch], ranks: int) -> list[list[Batch]]:
    """The batches of each rank: as many for each, so the short shares are filled with empty ones."""
    shares = [list(batches[rank::ranks]) for rank in range(ranks)]
    for share in shares:
        share += [_emptied(batches[-1])] * (len(shares[0]) - len(share))
    return shares


def _emptied(batch: Batch) -> Batch:
    """The batch's first trajectory with nothing in it to learn from: the model runs, and the ranks stay in step."""
    size = int(batch.lengths[0])
    nothing = np.zeros(size, bool)
    return Batch(batch.ids[:size], batch.lengths[:1], nothing, *[np.zeros(size, np.float32)] * 3)


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]
