"""Environment x engine -> trajectories. One coroutine an episode; no episode waits for another."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from learners import seeds
from learners.contract import NOT_KEPT
from learners.engines import Engine
from learners.environment import EnvironmentFault, faults, stops
from learners.renderers import Renderer
from learners.transcript import Transcript
from learners.types import Play, Sampling, Status, Trajectory

_MAX_THREADS = 64
_PAUSE = 5.0
"""Seconds before an episode is tried again; twice as many before the second time."""

MakeEnv = Callable[[dict[str, Any]], gym.Env[str, str]]
"""Makes an environment from keyword arguments; raises `EnvironmentFault`."""


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
    """In the order of the plays, without the dropped ones."""
    retried: int
    """Episodes begun again because their environment failed."""
    dropped: int
    """Episodes that failed at every try."""


class Worker:
    """Plays episodes of one environment with one engine, as many at once as the engine takes.

    Environment steps run on threads, so that they do not block the event loop. There are as many threads as episodes
    that play, up to 64, so that searches that wait for a server can go out together. Rendering and decoding compute, so
    they run two at a time.
    """

    def __init__(
        self, engine: Engine, renderer: Renderer, make_env: MakeEnv, limits: Limits, *,
        concurrency: int, max_retries: int = 2,
    ) -> None:  # fmt: skip
        """Keep the parts.

        Args:
            engine: Samples the turns.
            renderer: Made with the tokenizer of the engine's policy.
            make_env: Called whenever more environments with these keyword arguments play than there are already.
            limits: Of every episode.
            concurrency: Episodes that play at once; more wait.
            max_retries: Times that an episode is tried again after its environment failed, before it is dropped.
        """
        self.engine, self._renderer, self._make, self._limits = engine, renderer, make_env, limits
        self._max_retries = max_retries
        self._idle: dict[str, list[gym.Env[str, str]]] = defaultdict(list)
        self._threads = ThreadPoolExecutor(min(concurrency, _MAX_THREADS), thread_name_prefix="environment")
        # More threads that compute would only take the interpreter from each other and from the engine.
        self._computing = threading.Semaphore(2)
        self._room = asyncio.Semaphore(concurrency)

    async def collect(self, plays: Sequence[Play], env_kwargs: Mapping[str, Any], temperature: float) -> Rollout:
        """Play episodes.

        Args:
            plays: What to play.
            env_kwargs: Keyword arguments of the environment.
            temperature: Of sampling; 0.0 is greedy.

        Raises:
            EnvironmentFault: more than half of the episodes had to be dropped.
        """
        counts = {"retried": 0, "dropped": 0}
        outages: list[EnvironmentFault] = []
        kwargs = json.dumps(dict(env_kwargs), sort_keys=True)

        async def episode(play: Play) -> Trajectory | None:
            for tried in range(1 + self._max_retries):
                # A service that failed needs time. The pause is outside the semaphore, so that others play meanwhile.
                await asyncio.sleep(tried * _PAUSE)
                async with self._room:
                    env = None
                    try:
                        env = await self._run(self._take, kwargs)
                        trajectory = await self._play(env, play, temperature)
                    except EnvironmentFault as fault:  # an outage, to be retried and counted; a bug of ours is not one
                        outages.append(fault)
                        counts["retried"] += 1
                        if env is not None:
                            await self._run(_abandon, env)
                        continue
                    self._idle[kwargs].append(env)
                    return trajectory
            # The last failure was counted as a retry above, but nothing was tried after it.
            counts["retried"] -= 1
            counts["dropped"] += 1
            return None

        played = await asyncio.gather(*(episode(play) for play in plays))
        trajectories = [trajectory for trajectory in played if trajectory is not None]
        if counts["dropped"] > len(plays) / 2:
            raise outages[-1]
        return Rollout(trajectories, **counts)

    async def close(self) -> None:
        """Stop the engine, and close the environments that do not play. A step that is running ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        try:
            await self.engine.close()
        finally:
            for envs in self._idle.values():
                while envs:
                    _abandon(envs.pop())

    async def _play(self, env: gym.Env[str, str], play: Play, temperature: float) -> Trajectory:
        limits, stop = self._limits, stops(env)
        prompt, info, ids = await self._run(self._begin, env, play.seed)
        transcript = Transcript(ids)
        text = [("prompt", prompt)]
        status = Status.LENGTH
        # The loop is bounded for a policy that writes empty turns, which use up no tokens.
        for turn in range(limits.length):
            budget = min(limits.turn, limits.length - len(transcript))
            if budget <= 0:
                break
            seed = seeds.turn(play.sampling_seed, turn) if temperature > 0 else None
            completion = await self.engine.generate(transcript.ids, Sampling(temperature, budget, stop, seed))
            action, step, ids = await self._run(self._step, env, completion.ids)
            observation, reward, terminated, truncated, info = step
            transcript.act(completion, float(reward), info)
            text += [("policy", action), ("environment", observation)]
            if terminated or truncated:
                status = Status.TERMINATED if terminated else Status.TRUNCATED
                break
            # Without room for another turn the policy could not read the observation, so it is left out.
            if len(transcript) + len(ids) >= limits.length:
                break
            transcript.observe(ids)
        return transcript.finish(status=status, seed=play.seed, group=play.group, info=info, text=tuple(text))

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _take(self, kwargs: str) -> gym.Env[str, str]:
        try:
            return self._idle[kwargs].pop()
        except IndexError:
            return self._make(json.loads(kwargs))

    def _begin(self, env: gym.Env[str, str], seed: int) -> tuple[str, dict[str, Any], list[int]]:
        with faults():
            prompt, info = env.reset(seed=seed)
        with self._computing:
            return prompt, _kept(info), self._renderer.begin(prompt, info)

    def _step(self, env: gym.Env[str, str], ids: Sequence[int]) -> tuple[str, tuple, list[int]]:
        with self._computing:
            action = self._renderer.decode(ids)
        with faults():
            observation, reward, terminated, truncated, info = env.step(action)
        with self._computing:
            rendered = self._renderer.observe(observation, info)
        return action, (observation, reward, terminated, truncated, _kept(info)), rendered


def _kept(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a trajectory keeps of `info`: a copy, because an environment may fill the same dictionary at every step."""
    return {key: value for key, value in info.items() if key not in NOT_KEPT}


def _abandon(env: gym.Env[str, str]) -> None:
    """Close an environment. One that has failed may fail to close, too."""
    with suppress(Exception):
        env.close()
