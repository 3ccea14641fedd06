"""Between the searches of many episodes and one backend: no query asked twice, no failure passed off as an answer.

- A query that was answered before comes from the cache; one that is on its way is waited for, not asked again.
- Queries that arrive while the backend is busy go out together in its next call. Nobody waits for company: an idle
  backend is called at once.
- A call that fails for now is tried again, with growing random pauses, until the deadline. Then the searches fail,
  and the circuit is open: one trial a cool-down is all that the backend is asked until it answers. Searches wait for
  the next trial, and fail with it, sooner than at their own deadline.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval import Corpus, Hit, Retriever
from research_env.retrieval.recording import Recording

Key = tuple[str, int]
"""Query and top-k."""


class GatewayOptions(BaseModel):
    """What every retriever takes, whatever its address."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    deadline: float = Field(30.0, gt=0)
    """Seconds a search may take, tries and pauses included."""
    cooldown: float = Field(5.0, gt=0)
    """Seconds between trials while the circuit is open."""
    cache: int = Field(10_000, ge=0)
    """Answers kept in memory; 0 keeps none."""
    recording: str | None = None
    """File that keeps answers from run to run."""
    mode: str = Field("cache", pattern="^(cache|record|replay)$")
    """`cache` reads and writes the recording; `record` asks the backend for everything and writes; `replay` reads, and
    never asks the backend."""

    @model_validator(mode="after")
    def _needs_a_file(self) -> GatewayOptions:
        if self.mode != "cache" and not self.recording:
            raise ValueError(f"say with recording=FILE what to {self.mode}")
        return self


@dataclass
class Stats:
    """Counts since the gateway was opened."""

    queries: int = 0
    """Queries asked of the gateway."""
    cached: int = 0
    """Of these, answered from the cache or the recording."""
    joined: int = 0
    """Of these, answered by a call that was already on its way for another."""
    sent: int = 0
    """Queries sent to the backend; tries again count again."""
    calls: int = 0
    """Calls of the backend."""
    retries: int = 0
    """Of these, tries again."""
    failed: int = 0
    """Queries that ended in an error."""


class Gateway:
    """A `Retriever` around a backend. Thread-safe; `asearch` is its form for coroutines."""

    def __init__(self, backend: Retriever, options: GatewayOptions | None = None) -> None:
        self.backend, self.options = backend, options or GatewayOptions()
        self.corpus: Corpus = backend.corpus
        self.settings = backend.settings
        self.max_batch, self.concurrency = backend.max_batch, backend.concurrency
        self.stats = Stats()
        self._lock = threading.Lock()
        self._circuit = threading.Condition(self._lock)
        self._cache: LRUCache[Key, list[Hit]] = LRUCache(self.options.cache)
        self._inflight: dict[Key, Future[list[Hit]]] = {}
        self._waiting: deque[Key] = deque()
        self._busy = 0
        self._open_until: float | None = None  # while the circuit is open: time of the next trial
        self._trying = False
        self._failures = 0
        self._reason = ""
        self._closed = False
        self._threads = ThreadPoolExecutor(backend.concurrency, thread_name_prefix="retrieval")
        self._recording: Recording | None = None
        if self.options.recording and self.options.mode != "replay":
            identity = json.dumps([asdict(self.corpus), dict(self.settings)], sort_keys=True)
            self._recording = Recording(self.options.recording, identity, self.corpus)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`; `RetrievalUnavailable` comes after the deadline, or from an open circuit."""
        until = time.monotonic() + self.options.deadline
        futures = self._ask_all(queries, top_k)
        # A backend that takes one query a call is not worth a change of threads.
        self._work(here=self.max_batch == 1)
        try:
            return [list(future.result(max(0.0, until - time.monotonic()))) for future in futures]
        except FutureTimeout:
            raise self._late() from None

    async def asearch(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """`search` for coroutines: the event loop goes on meanwhile."""
        futures = self._ask_all(queries, top_k)
        self._work(here=False)
        # Shielded, because others may wait for the same answers.
        waiting = asyncio.gather(*(asyncio.shield(asyncio.wrap_future(future)) for future in futures))
        try:
            return [list(hits) for hits in await asyncio.wait_for(waiting, self.options.deadline)]
        except TimeoutError:
            raise self._late() from None

    def trouble(self) -> str | None:
        """Why the circuit is open; None while it is closed."""
        with self._lock:
            return self._reason if self._open_until is not None else None

    def close(self) -> None:
        """Let go of threads, connections and files; who still waits is told."""
        with self._lock:
            self._closed = True
            futures = [self._inflight.pop(key) for key in self._waiting]
            self._waiting.clear()
            self._circuit.notify_all()
        for future in futures:
            future.set_exception(RetrievalError(f"{self.corpus.name}: the retriever was closed"))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.backend.close()
        if self._recording:
            self._recording.close()

    def _late(self) -> RetrievalUnavailable:
        reason = f" ({self._reason})" if self._reason else ""
        return RetrievalUnavailable(f"{self.corpus.name}: no answer within {self.options.deadline:g} s{reason}")

    def _ask_all(self, queries: Sequence[str], top_k: int) -> list[Future[list[Hit]]]:
        if top_k < 1:
            raise ConfigurationError(f"top_k={top_k}: give 1 or more")
        return [self._ask((query, top_k)) for query in queries]

    def _ask(self, key: Key) -> Future[list[Hit]]:
        """The future answer to a query: known, on its way, or newly in the queue."""
        future: Future[list[Hit]] = Future()
        future.set_running_or_notify_cancel()  # nobody may cancel what others wait for
        with self._lock:
            self.stats.queries += 1
            known = self._cache.get(key)
        if known is None and self._recording and self.options.mode == "cache":
            known = self._recording.get(*key)
        with self._lock:
            if self._closed:
                raise RetrievalError(f"{self.corpus.name}: the retriever was closed")
            if known is None:  # it may have been answered meanwhile
                known = self._cache.get(key)
            if known is None and key in self._inflight:
                self.stats.joined += 1
                return self._inflight[key]
            if known is None:
                self._inflight[key] = future
                self._waiting.append(key)
                return future
            self.stats.cached += 1
            self._keep(key, known)
        future.set_result(known)
        return future

    def _keep(self, key: Key, hits: list[Hit]) -> None:
        if self.options.cache:
            self._cache[key] = hits

    def _work(self, here: bool) -> None:
        """Call the backend for what waits, as far as there is room for calls; the first on this thread if `here`."""
        with self._lock:
            calls = min(self.concurrency - self._busy, -(-len(self._waiting) // self.max_batch))
            if calls < 1:
                return
            self._busy += calls
            batch = self._take() if here else []
        for _ in range(calls - here):
            self._threads.submit(self._drain)
        if here:
            try:
                self._answer(batch)
            finally:
                self._hand_on()

    def _hand_on(self) -> None:
        """Give back this thread's room for a call. Others may have come meanwhile: a thread of ours sees to them."""
        with self._lock:
            if self._waiting and not self._closed:
                self._threads.submit(self._drain)
            else:
                self._busy -= 1

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                batch = self._take()
            self._answer(batch)

    def _take(self) -> list[Key]:
        """The next keys with one top-k, at most `max_batch`. The lock is held."""
        batch = [self._waiting.popleft()]
        while self._waiting and len(batch) < self.max_batch and self._waiting[0][1] == batch[0][1]:
            batch.append(self._waiting.popleft())
        return batch

    def _answer(self, batch: list[Key]) -> None:
        """Call the backend, and give everybody who waits the answer or the error."""
        try:
            found = self._call([query for query, _ in batch], batch[0][1])
            if self._recording:
                self._recording.put([(*key, hits) for key, hits in zip(batch, found, strict=True)])
        except BaseException as error:
            with self._lock:
                self.stats.failed += len(batch)
                futures = [self._inflight.pop(key) for key in batch]
            told = error if isinstance(error, Exception) else RetrievalUnavailable(f"{self.corpus.name}: interrupted")
            for future in futures:
                future.set_exception(told)
            if told is not error:
                raise
            return
        with self._lock:
            futures = [self._inflight.pop(key) for key in batch]
            for key, hits in zip(batch, found, strict=True):
                self._keep(key, hits)
        for future, hits in zip(futures, found, strict=True):
            future.set_result(hits)

    def _call(self, queries: list[str], top_k: int) -> list[list[Hit]]:
        """One call of the backend with its tries."""
        trial = self._admit()
        tries = Retrying(
            stop=stop_before_delay(0.0 if trial else self.options.deadline),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            retry=retry_if_exception_type(RetrievalUnavailable),
            before_sleep=self._before_pause,
            reraise=True,
        )
        reason = None
        try:
            found: list[list[Hit]] = tries(self._once, queries, top_k)
            return found
        except RetrievalUnavailable as error:
            reason = str(error)
            raise
        finally:
            self._judge(trial, reason)

    def _admit(self) -> bool:
        """Wait while the circuit is open; True where this call is to be the trial.

        Raises:
            RetrievalUnavailable: the trial that this call waited for has failed.
        """
        with self._circuit:
            seen = self._failures
            while self._open_until is not None:
                if self._failures != seen or self._closed:
                    raise RetrievalUnavailable(self._reason)
                left = self._open_until - time.monotonic()
                if left <= 0 and not self._trying:
                    self._trying = True
                    return True
                self._circuit.wait(None if self._trying else left)
        return False

    def _judge(self, trial: bool, reason: str | None) -> None:
        """Open the circuit after a call that failed for `reason`; close it after any other, which was answered."""
        with self._circuit:
            self._trying = self._trying and not trial
            if reason is None:
                self._open_until, self._reason = None, ""
            else:
                self._open_until, self._reason = time.monotonic() + self.options.cooldown, reason
                self._failures += 1
            self._circuit.notify_all()

    def _before_pause(self, state: RetryCallState) -> None:
        self._count(retries=1)
        if state.outcome is not None:
            self._reason = str(state.outcome.exception())

    def _once(self, queries: list[str], top_k: int) -> list[list[Hit]]:
        self._count(calls=1, sent=len(queries))
        found = self.backend.search(queries, top_k)
        if len(found) != len(queries):
            raise RetrievalError(f"{self.corpus.name}: {len(found)} answers came to {len(queries)} queries")
        return found

    def _count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self.stats, name, getattr(self.stats, name) + count)
