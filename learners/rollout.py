"""Environment x engine -> trajectories. One coroutine an episode; no episode waits for another."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from transformers import PreTrainedTokenizerBase

from learners.engines import Engine
from learners.environment import EnvironmentFault, faults, make, stops
from learners.transcript import Transcript
from learners.types import Sampling, Trajectory

_MAX_THREADS = 64
_PAUSE = 5.0  # seconds before an episode is tried again; twice as many before the second time


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one episode, in tokens."""

    length: int
    """Prompt, turns and observations together."""
    turn: int
    """One turn of the policy."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What `Worker.collect` returns."""

    trajectories: list[Trajectory]
    """In the order of the seeds, without the dropped ones."""
    retried: int
    """Episodes begun again because their environment failed."""
    dropped: int
    """Episodes given up."""


class Worker:
    """Plays episodes of one environment with one engine, as many at once as the engine takes.

    Environment steps run on threads beside the event loop, which only ever waits: as many as there are episodes, so
    that searches that wait for a server can go out together. Decoding and encoding, which compute, run two at a time.
    """

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, env_id: str, limits: Limits, *,
        concurrency: int, chat: bool = False, max_retries: int = 2, search_cost: float = 0.0,
    ) -> None:  # fmt: skip
        self.engine, self._tokenizer, self._env_id, self._limits = engine, tokenizer, env_id, limits
        self._chat, self._max_retries, self._search_cost = chat, max_retries, search_cost
        self._idle: dict[str, list[gym.Env[str, str]]] = defaultdict(list)
        self._threads = ThreadPoolExecutor(min(concurrency, _MAX_THREADS), thread_name_prefix="environment")
        self._computing = threading.Semaphore(2)
        self._room = asyncio.Semaphore(concurrency)

    async def collect(
        self, seeds: Sequence[int], env_kwargs: Mapping[str, Any], temperature: float, sampling_seed: int
    ) -> Rollout:
        """Play one episode for each reset seed; a seed given G times is a group of G.

        Raises:
            EnvironmentFault: more than half of the episodes had to be dropped.
        """
        counts = {"retried": 0, "dropped": 0}
        outages: list[EnvironmentFault] = []
        kwargs = json.dumps(dict(env_kwargs), sort_keys=True)

        async def episode(number: int, seed: int) -> Trajectory | None:
            for tried in range(1 + self._max_retries):
                await asyncio.sleep(tried * _PAUSE)  # what failed needs time, and others need the room meanwhile
                async with self._room:
                    env = None
                    try:
                        env = await self._run(self._take, kwargs)
                        trajectory = await self._play(env, seed, temperature, sampling_seed + number * 1_000)
                    except EnvironmentFault as fault:  # an outage: ours to retry and to count
                        outages.append(fault)
                        counts["retried"] += 1
                        if env is not None:
                            await self._run(_abandon, env)
                        continue
                    self._idle[kwargs].append(env)
                    return trajectory
            counts["retried"] -= 1
            counts["dropped"] += 1
            return None

        played = await asyncio.gather(*(episode(number, seed) for number, seed in enumerate(seeds)))
        trajectories = [trajectory for trajectory in played if trajectory is not None]
        if counts["dropped"] > len(seeds) / 2:
            raise outages[-1]
        return Rollout(trajectories, **counts)

    async def _play(self, env: gym.Env[str, str], seed: int, temperature: float, sampling_seed: int) -> Trajectory:
        limits, stop = self._limits, stops(env)
        prompt, info, ids = await self._run(self._begin, env, seed)
        transcript = Transcript(ids)
        text = [("prompt", prompt)]
        reward = 0.0
        for turn in range(limits.length):
            budget = min(limits.turn, limits.length - len(transcript))
            if budget <= 0:
                return transcript.finish(reward=0.0, status="length", seed=seed, info=info, text=tuple(text))
            sampling = Sampling(temperature, budget, stop, sampling_seed + turn if temperature > 0 else None)
            completion = await self.engine.generate(transcript.ids, sampling)
            transcript.act(completion)
            action, step, ids = await self._run(self._step, env, completion.ids)
            observation, gained, terminated, truncated, info = step
            reward += float(gained)
            text += [("policy", action), ("environment", observation)]
            if terminated or truncated:
                status = "terminated" if terminated else "truncated"
                break
            if len(transcript) + len(ids) >= limits.length:  # no room for another turn, so nobody will read it
                return transcript.finish(reward=0.0, status="length", seed=seed, info=info, text=tuple(text))
            transcript.observe(ids)
        reward -= self._search_cost * info.get("searches", 0)
        return transcript.finish(reward=reward, status=status, seed=seed, info=info, text=tuple(text))

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _take(self, kwargs: str) -> gym.Env[str, str]:
        try:
            return self._idle[kwargs].pop()
        except IndexError:
            return make(self._env_id, json.loads(kwargs))

    def _begin(self, env: gym.Env[str, str], seed: int) -> tuple[str, dict[str, Any], list[int]]:
        with faults():
            prompt, info = env.reset(seed=seed)
        if self._chat:
            message = [{"role": "user", "content": prompt}]
            prompt = self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        with self._computing:
            return prompt, info, self._tokenizer.encode(prompt, add_special_tokens=False)

    def _step(self, env: gym.Env[str, str], ids: Sequence[int]) -> tuple[str, tuple, list[int]]:
        with self._computing:
            action = self._tokenizer.decode(ids, skip_special_tokens=True)
        with faults():
            step = env.step(action)
        with self._computing:
            return action, step, self._tokenizer.encode(step[0], add_special_tokens=False) if step[0] else []


def _abandon(env: gym.Env[str, str]) -> None:
    """Close an environment that has failed; it may well fail at that too."""
    with suppress(Exception):
        env.close()
