"""An environment that knows nothing of this project, and an engine that follows a script."""

from __future__ import annotations

import asyncio
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from learners import environment
from learners.renderers.plain import PlainRenderer
from learners.rollout import Limits, Rollout, Worker
from learners.types import Completion, Play, Sampling

ENV = "Doors-v0"
ROOMY = Limits(length=200, turn=30)


class Doors(gym.Env[str, str]):
    """Behind door `seed` lies the word `gold<seed>`: "look" tells it, saying it wins 1.0, a third look truncates.

    A look costs `cost`. Every step fills the same `info`, as some environments do.
    """

    metadata: dict[str, Any] = {"render_modes": [], "stop": ["look."]}
    outages: ClassVar[Counter[tuple[str, int]]] = Counter()
    """`(where, seed)` -> times that it still fails there."""
    made: ClassVar[int] = 0

    def __init__(self, greeting: str = "door", cost: float = 0.0, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)
        self.greeting, self.cost, self.render_mode = greeting, cost, render_mode
        self.info: dict[str, Any] = {}
        Doors.made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.looks = seed or 0, 0
        self.fail("reset")
        self.info.clear()
        self.info |= {"searches": 0, "hops": self.seed % 2}
        return f"{self.greeting} {seed}:", self.info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.fail("step")
        if action.endswith("look."):
            self.looks += 1
            said = "" if self.looks == 3 else f" gold{self.seed} "
            self.info |= {"searches": self.looks, "messages": [{"role": "user", "content": said}]}
            return said, -self.cost, False, self.looks == 3, self.info
        self.info |= {"said": action, "messages": []}
        return "", float(f"gold{self.seed}" in action), True, False, self.info

    def fail(self, where: str) -> None:
        if Doors.outages[where, self.seed] > 0:
            Doors.outages[where, self.seed] -= 1
            raise ConnectionError(f"no door {self.seed}")


class Script:
    """An engine that says what `say` makes of the text so far; each token has log-probability -0.5."""

    def __init__(self, tokenizer: Any, say: Callable[[str], str], version: int = 7) -> None:
        self.tokenizer, self.say, self.version = tokenizer, say, version
        self.calls: list[tuple[list[int], Sampling]] = []
        self.active = self.most = 0

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        self.calls.append((list(ids), sampling))
        self.active += 1
        self.most = max(self.most, self.active)
        await asyncio.sleep(0.002)
        self.active -= 1
        whole = self.tokenizer.encode(self.say(self.tokenizer.decode(ids)))
        said = whole[: sampling.max_tokens]
        return Completion(said, [-0.5] * len(said), "stop" if said == whole else "length", self.version)

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        self.version = version

    async def close(self) -> None:
        pass


def careful(text: str) -> str:
    """Looks once, then says the word."""
    return f" it is {text.split()[-1]}" if "gold" in text else " I look."


def plays(numbers: Sequence[int]) -> list[Play]:
    """A play for each reset seed; those of one seed are a group."""
    return [Play(seed, group=seed, sampling_seed=5 + 1_000 * at) for at, seed in enumerate(numbers)]


def worker(engine: Script, limits: Limits = ROOMY, **settings: Any) -> Worker:
    renderer = PlainRenderer(engine.tokenizer)
    return Worker(engine, renderer, partial(environment.make, ENV), limits, **{"concurrency": 64} | settings)


def play(
    engine: Script, numbers: Sequence[int], limits: Limits = ROOMY, temperature: float = 1.0,
    env_kwargs: Mapping[str, Any] | None = None, **settings: Any,
) -> Rollout:  # fmt: skip
    async def collect() -> Rollout:
        return await worker(engine, limits, **settings).collect(plays(numbers), env_kwargs or {}, temperature)

    return asyncio.run(asyncio.wait_for(collect(), 60))
