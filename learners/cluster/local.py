"""One engine and one trainer in this process, without Ray: for tests, debugging, and machines that have torch alone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from learners.cluster import division, placement
from learners.cluster.actors import RolloutActor, TrainerActor
from learners.cluster.failures import CHANGING, UNSURE, failure
from learners.config import Config
from learners.environment import EnvironmentFault
from learners.errors import Fault
from learners.rollout import Rollout
from learners.types import Batch, Play, Trajectory

T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds that closing waits for an engine."""


class LocalCluster:
    """See `Cluster`. The engine and the episodes run on an event loop on a thread of its own, the trainer on the
    caller's thread. Their exceptions are the causes of the faults that the caller gets, with their traceback."""

    def __init__(
        self, config: Config, model: str, trainers: bool = True, reference: str | None = None
    ) -> None:  # fmt: skip
        """Start the engine and load the policy.

        Raises:
            ValueError: the configuration asks for several engines or trainers.
        """
        if config.engine.count > 1 or (trainers and config.trainer.count > 1):
            raise ValueError(
                f"--cluster local has one engine and one trainer, not {config.engine.count} and "
                f"{config.trainer.count}; leave --engine.count and --trainer.count at 1, or use --cluster ray"
            )
        # These take effect where torch and transformers are not imported yet, and in an engine's own processes.
        for name, value in placement.environment(max(config.engine.threads, config.trainer.threads)).items():
            os.environ.setdefault(name, value)
        _hide_progress_bars()
        self.config = config
        self._unsure = False
        """Whether the trainer has failed in the middle of something, so that its weights may be half of an update."""
        self._rollout = RolloutActor(config, model, 0)
        self._trainer = TrainerActor(config, model, 0, reference)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-cluster", daemon=True)
        self._thread.start()
        try:
            self._wait(self._rollout.start())
            if trainers:
                self._trainer.start()
        except BaseException:
            self.close()
            raise

    def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        rollout = self._of_engine(self._rollout.collect(plays, env_kwargs, temperature))
        if rollout.worn:
            # Under Ray a new process takes the worker's place; here only the end of this one frees its threads.
            raise EnvironmentFault(
                f"a quarter of the threads are held by calls that do not return ({rollout.reason}); "
                "start again with --resume, or use --cluster ray, which replaces such a worker"
            )
        return rollout

    def score(self, trajectories: Sequence[Trajectory], wanted: frozenset[str]) -> dict[str, list[np.ndarray]]:
        def run(of_ranks: list[list[Batch]]) -> list[list[division.Columns]]:
            return [self._call("score", batches, wanted) for batches in of_ranks]

        return division.score(trajectories, wanted, self.config.trainer.max_batch_tokens, 1, run)

    def step(
        self, batches: Sequence[Batch], learning_rate: float, coefficients: Mapping[str, float]
    ) -> dict[str, float]:
        return division.merge_metrics([self._call("step", batches, learning_rate, coefficients)])

    def publish(self, version: int) -> None:
        # An engine takes copies: these arrays are the very weights that the next step changes.
        weights = self._call("weights")
        self._of_engine(self._rollout.update_weights(weights, version))

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        if self._unsure:
            raise Fault(UNSURE)
        self._call("save", folder.resolve(), state)

    def load(self, folder: Path) -> None:
        self._call("load", folder.resolve())

    def _call(self, method: str, *args: Any) -> Any:
        """Call a method of `Trainer`."""
        try:
            return self._trainer.call(method, *args)
        except Fault:
            raise
        except Exception as error:
            self._unsure |= method in CHANGING
            raise failure("the trainer", error) from error

    def _of_engine(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._wait(work)
        except Fault:
            raise
        except Exception as error:
            raise failure("the engine", error) from error

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the event loop's thread. Ctrl-C ends the waiting and cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the engine, then the event loop and its thread. An environment's step that is running ends by itself."""
        if self._loop.is_closed():
            return
        try:
            self._wait(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _stop(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rollout.close(), _PATIENCE)
            # This waits for the threads of `asyncio.to_thread`, so it is left out where the engine does not stop.
            await asyncio.get_running_loop().shutdown_default_executor()
        # Episodes that Ctrl-C has cancelled may still be on their way out; a closed loop would warn of each.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hide_progress_bars() -> None:
    """Keep transformers from drawing a bar at every checkpoint; where it is imported already, it reads no variable."""
    from transformers.utils import logging

    logging.disable_progress_bar()
