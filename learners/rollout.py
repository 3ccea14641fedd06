"""Environment x engine -> trajectories. One coroutine an episode; no episode waits for another."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from learners import environment, seeds
from learners.contract import NOT_KEPT
from learners.engines import Engine
from learners.environment import EnvironmentFault
from learners.errors import Fault
from learners.renderers import Renderer
from learners.threads import NotReturned, Threads
from learners.transcript import Transcript
from learners.types import Play, Sampling, Status, Trajectory

_MAX_THREADS = 64
_PAUSE = 5.0
"""Seconds before an episode is tried again; twice as many before the second time."""
_PATIENCE = 5.0
"""Seconds that closing waits for environments."""

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
    lost: int = 0
    """Threads left behind by environments that did not return in time."""
    worn: bool = False
    """A quarter of the worker's threads are lost: it should be replaced."""
    reason: str = ""
    """What the last failure was, in one line; empty where there was none."""

    @property
    def failures(self) -> str:
        """What failed, for a reader."""
        return f"episodes begun again: {self.retried}, dropped: {self.dropped}; the last failure: {self.reason}"


class Worker:
    """Plays episodes of one environment with one engine, as many at once as the engine takes.

    Environment steps run on threads, so that they do not block the event loop. There are as many threads as episodes
    that play, up to 64, so that searches that wait for a server can go out together. Rendering and decoding compute, so
    they run two at a time. An environment that does not return in time is never used again, and its thread is left
    behind.
    """

    def __init__(
        self, engine: Engine, renderer: Renderer, make_env: MakeEnv, limits: Limits, *,
        concurrency: int, max_retries: int = 2, step_timeout: float = 600.0,
    ) -> None:  # fmt: skip
        """Keep the parts.

        Args:
            engine: Samples the turns.
            renderer: Made with the tokenizer of the engine's policy.
            make_env: Called whenever more environments with these keyword arguments play than there are already.
            limits: Of every episode.
            concurrency: Episodes that play at once; more wait.
            max_retries: Times that an episode is tried again after its environment failed, before it is dropped.
            step_timeout: Seconds that one call of an environment may take.
        """
        self.engine, self._renderer, self._make, self._limits = engine, renderer, make_env, limits
        self._max_retries = max_retries
        self._idle: dict[str, list[_Seat]] = defaultdict(list)
        self._open: set[_Seat] = set()
        self._playing: set[asyncio.Task[Any]] = set()
        self._threads = Threads(min(concurrency, _MAX_THREADS), step_timeout)
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
        lost = self._threads.lost

        async def episode(play: Play) -> Trajectory | None:
            for tried in range(1 + self._max_retries):
                # A service that failed needs time. The pause is outside the semaphore, so that others play meanwhile.
                await asyncio.sleep(tried * _PAUSE)
                async with self._room:
                    try:
                        return await self._play(play, kwargs, temperature)
                    except EnvironmentFault as fault:  # an outage, to be retried and counted; a bug of ours is not one
                        outages.append(fault)
                        counts["retried"] += 1
                        # Each call that hangs costs the whole limit of time: an environment that always does must end.
                        if self._threads.lost - lost > self._threads.size * (1 + self._max_retries):
                            raise
            # The last failure was counted as a retry above, but nothing was tried after it.
            counts["retried"] -= 1
            counts["dropped"] += 1
            # The others would only wait for an environment that is gone.
            if counts["dropped"] > len(plays) / 2:
                raise outages[-1]
            return None

        playing = [asyncio.create_task(episode(play)) for play in plays]
        self._playing.update(playing)
        try:
            played = await asyncio.gather(*playing)
        except BaseException:
            await _cancel(playing)
            raise
        finally:
            self._playing.difference_update(playing)
        return Rollout(
            [trajectory for trajectory in played if trajectory is not None],
            **counts,
            lost=self._threads.lost - lost,
            worn=self._threads.held * 4 >= self._threads.size,
            reason=str(outages[-1]) if outages else "",
        )

    async def close(self) -> None:
        """End the episodes, close all environments (one that is in a step, when it returns), and stop the engine."""
        await _cancel(self._playing)
        try:
            await self._close_environments()
        finally:
            await self.engine.close()
            self._threads.close()

    async def _close_environments(self) -> None:
        end = time.monotonic() + _PATIENCE
        closing = [asyncio.create_task(self._run(seat, seat.close)) for seat in self._open if not seat.busy]
        if closing:
            await asyncio.wait(closing, timeout=_PATIENCE)
        # Those that were in a step when they were cancelled are closed by their own threads.
        while any(seat.env is not None for seat in self._open) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await _cancel(closing)

    async def _play(self, play: Play, kwargs: str, temperature: float) -> Trajectory:
        """Play one episode in an idle environment or a new one, which is idle again only if all went well."""
        seat = self._idle[kwargs].pop() if self._idle[kwargs] else _Seat()
        self._open.add(seat)
        try:
            if seat.env is None:
                await self._run(seat, self._fill, seat, kwargs)
            trajectory = await self._episode(seat, play, temperature)
        except NotReturned:
            # Its thread closes it when it returns, if ever: nobody else may touch it meanwhile.
            self._open.discard(seat)
            who = environment.name(seat.env) if seat.env is not None else "an environment that is being made"
            raise EnvironmentFault(
                f"{who}, seed {play.seed}: a call has not returned for {self._threads.limit:g} s, and is left behind; "
                "research.step_timeout is the limit"
            ) from None
        except Exception:
            await self._abandon(seat)
            raise
        self._idle[kwargs].append(seat)
        return trajectory

    async def _episode(self, seat: _Seat, play: Play, temperature: float) -> Trajectory:
        limits, stop = self._limits, environment.stops(seat.env)
        prompt, info, ids = await self._run(seat, self._begin, seat.env, play.seed)
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
            if completion.finish not in ("stop", "length"):
                raise Fault(f"the engine gave the finish {completion.finish!r}; give 'stop' or 'length'")
            if completion.finish == "length":
                # Half a turn is no action: the environment would take it for a malformed one.
                transcript.act(completion)
                text.append(("policy", await self._run(seat, self._decode, completion.ids)))
                break
            where = f"step {turn + 1} of seed {play.seed}"
            action, step, ids = await self._run(seat, self._step, seat.env, completion.ids, where)
            observation, reward, terminated, truncated, info = step
            transcript.act(completion, reward, info)
            text += [("policy", action), ("environment", observation)]
            if terminated or truncated:
                status = Status.TERMINATED if terminated else Status.TRUNCATED
                break
            # Without room for another turn the policy could not read the observation, so it is left out.
            if len(transcript) + len(ids) >= limits.length:
                break
            transcript.observe(ids)
        return transcript.finish(status=status, seed=play.seed, group=play.group, info=info, text=tuple(text))

    async def _run(self, seat: _Seat, function: Any, *args: Any) -> Any:
        seat.busy = True
        try:
            result = await self._threads.run(lambda: function(*args), late=seat.close)
        except (NotReturned, asyncio.CancelledError):
            raise  # a thread is still in it
        except Exception:
            seat.busy = False
            raise
        seat.busy = False
        return result

    async def _abandon(self, seat: _Seat) -> None:
        """Close an environment that has failed; closing may hang, too."""
        with suppress(NotReturned):
            await self._run(seat, seat.close)
        self._open.discard(seat)

    def _fill(self, seat: _Seat, kwargs: str) -> None:
        seat.env = self._make(json.loads(kwargs))

    def _begin(self, env: gym.Env[str, str], seed: int) -> tuple[str, dict[str, Any], list[int]]:
        prompt, info = environment.reset(env, seed)
        with self._computing:
            return prompt, _kept(info), self._renderer.begin(prompt, info)

    def _decode(self, ids: Sequence[int]) -> str:
        with self._computing:
            return self._renderer.decode(ids)

    def _step(self, env: gym.Env[str, str], ids: Sequence[int], where: str) -> tuple[str, tuple, list[int]]:
        action = self._decode(ids)
        observation, reward, terminated, truncated, info = environment.step(env, action)
        number = environment.reward(env, reward, where)
        with self._computing:
            rendered = self._renderer.observe(observation, info)
        return action, (observation, number, terminated, truncated, _kept(info)), rendered


class _Seat:
    """The place of one environment."""

    def __init__(self) -> None:
        self.env: Any = None
        """None until it is made, and when it has been closed."""
        self.busy = False
        """A thread is in it, perhaps for ever."""

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self.env is not None:
            environment.close(self.env)
            self.env = None


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _kept(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a trajectory keeps of `info`."""
    return {key: value for key, value in info.items() if key not in NOT_KEPT}
