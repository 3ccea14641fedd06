"""What lives in an actor: an engine with its environments, or one rank of the trainer.

The classes know nothing of Ray, which calls them from `driver.py`; `local.py` calls them in its own process.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from learners import names, plugins, seeds
from learners.engines import ENGINES
from learners.environment import make
from learners.renderers import RENDERERS
from learners.rollout import Limits, Rollout, Worker
from learners.types import Play

if TYPE_CHECKING:
    from learners.config import Config


class RolloutActor:
    """An engine and its environments: whole episodes cross its boundary, never single turns."""

    def __init__(self, config: Config, model: str, number: int) -> None:
        self._config, self._model, self._number = config, model, number
        self._worker: Worker | None = None

    async def start(self) -> None:
        """Start the engine; returns when it can generate. Call it on the event loop that the engine shall live on.

        Raises:
            ValueError: engine or renderer cannot be loaded, or the renderer does not fit the tokenizer.
            PluginFault: the engine cannot be made.
        """
        # It takes seconds to import, and only here is it known that a model is needed.
        from transformers import AutoTokenizer

        config, environment = self._config, self._config.environment()

        def make_env(kwargs: dict[str, Any]) -> gym.Env[str, str]:
            return make(environment.id, kwargs, environment.wrappers)

        # The renderer is made first: if it does not fit, there is no engine yet that would have to be stopped.
        renderer = names.load(RENDERERS, "--renderer", config.renderer)(AutoTokenizer.from_pretrained(self._model))
        kind = f"--engine.kind {config.engine.kind}"
        make_engine = plugins.guarded(kind, names.load(ENGINES, "--engine.kind", config.engine.kind))
        engine = make_engine(config.engine, self._model, seed=seeds.engine(config.seed, self._number))
        self._worker = Worker(
            engine, renderer, make_env, Limits(config.engine.max_length, config.max_turn_tokens),
            # Twice as many as the engine takes at once: while one episode searches, another generates.
            concurrency=config.engine.max_sequences * 2, max_retries=config.max_retries,
            step_timeout=environment.step_timeout,
        )  # fmt: skip

    async def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        """See `Worker.collect`."""
        assert self._worker is not None
        return await self._worker.collect(plays, env_kwargs, temperature)

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """See `Engine.update_weights`."""
        assert self._worker is not None
        await self._worker.engine.update_weights(weights, version)

    async def close(self) -> None:
        """See `Worker.close`; an actor that has not started has nothing to close."""
        if self._worker is not None:
            await self._worker.close()


class TrainerActor:
    """One rank of the trainer."""

    def __init__(self, config: Config, model: str, rank: int, reference: str | None = None) -> None:
        self._config, self._model, self._rank, self._reference = config, model, rank, reference

    def address(self, host: str) -> str:
        """Where the other ranks find this one, on a port that is free now."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{host}:{free.getsockname()[1]}"

    def start(self, rendezvous: str = "") -> None:
        """Meet the other ranks, where there are several, and load the policy."""
        config = self._config
        if config.trainer.count > 1:
            import torch.distributed

            backend = "nccl" if config.trainer.device == "cuda" else "gloo"
            torch.distributed.init_process_group(
                backend, init_method=rendezvous, rank=self._rank, world_size=config.trainer.count
            )
        # Imported here, because it imports torch and transformers, which the process of the loop does not need.
        from learners.trainer import Trainer

        self._trainer = Trainer(config, self._model, self._rank, self._reference)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of `Trainer`."""
        return getattr(self._trainer, method)(*args)
