"""Between the searches of many episodes and one backend: no query is asked twice, no failure looks like an answer.

- A query that was answered before is answered from the cache. A query that is on its way already is not sent again:
  the search waits for the same answer.
- Queries that arrive while the backend is busy go out together in its next call. An idle backend is called at once.
- A call that raises `RetrievalUnavailable` is retried, with growing random pauses, until the deadline. Then its
  searches fail and the circuit opens: one trial call is made in each cool-down, until the backend answers. Searches
  that arrive meanwhile wait for the next trial and get its outcome, sooner than at their own deadline.
- A query's deadline counts from when its call goes out. A query in the queue waits for as long as the backend goes on
  answering others: thousands of queries at once are late only where the backend is.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import asdict

from cachetools import LRUCache
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from research_env.errors import RetrievalError, RetrievalUnavailable
from research_env.retrieval.base import Retriever
from research_env.retrieval.gateway.border import check_asked, checked, failure, query_text
from research_env.retrieval.gateway.circuit import Circuit
from research_env.retrieval.gateway.options import GatewayOptions, Stats
from research_env.retrieval.gateway.recording import Recording
from research_env.retrieval.gateway.wanted import Key, Wanted
from research_env.types import Hit


class Gateway:
    """A `Retriever` around a backend. Thread-safe; `asearch` is its form for coroutines."""

    def __init__(self, backend: Retriever, options: GatewayOptions | None = None) -> None:
        self.backend, self.options = backend, options or GatewayOptions()
        self.corpus, self.settings = backend.corpus, backend.settings
        self.max_batch, self.concurrency = backend.max_batch, backend.concurrency
        self.stats = Stats()
        self._lock = threading.Lock()
        self._cache: LRUCache[Key, list[Hit]] = LRUCache(self.options.cache)
        self._inflight: dict[Key, Wanted] = {}
        self._waiting: deque[Key] = deque()
        self._busy = 0
        self._answered = 0.0  # when the backend last answered
        # At most half the deadline, so that a search that comes while the circuit is open sees the next trial.
        self._circuit = Circuit(min(self.options.cooldown, self.options.deadline / 2))
        self._closed = False
        # Made once, because making one costs more than a small search. A trial is one call, without retries.
        self._tries, self._trial = self._retrying(self.options.deadline), self._retrying(0.0)
        self._threads = ThreadPoolExecutor(backend.concurrency, thread_name_prefix="retrieval")
        self._recording: Recording | None = None
        if self.options.recording and self.options.mode != "replay":
            identity = json.dumps([asdict(self.corpus), dict(self.settings)], sort_keys=True)
            self._recording = Recording(self.options.recording, identity, self.corpus)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`; `RetrievalUnavailable` comes after the deadline, or from an open circuit."""
        found = []
        for outcome in self.outcomes(queries, top_k):
            if isinstance(outcome, Exception):
                raise outcome
            found.append(outcome)
        return found

    def outcomes(self, queries: Sequence[str], top_k: int) -> list[list[Hit] | Exception]:
        """For each query its hits, or the error that `search` would raise for it alone.

        A query that fails does not lose the answers of the others.

        Raises:
            ConfigurationError: the queries are no list of texts, or `top_k` is less than 1.
        """
        alone = len(queries) == 1 and isinstance(queries[0], str)
        if alone and (known := self._cached((query_text(queries[0]), top_k))) is not None:
            return [known]
        asked = time.monotonic()
        wanted = self._ask_all(queries, top_k)
        # A backend that takes one query a call computes in this process: changing threads costs more than it gains.
        self._work(here=self.max_batch == 1)
        return [self._outcome(one, asked) for one in wanted]

    async def asearch(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """`search` for coroutines: the event loop goes on meanwhile."""
        asked = time.monotonic()
        wanted = self._ask_all(queries, top_k)
        self._work(here=False)
        try:
            return [list(await self._awaited(one, asked)) for one in wanted]
        except BaseException:  # one query has failed, or this coroutine was cancelled
            self._leave(wanted)
            raise

    def trouble(self) -> str | None:
        """Why the circuit is open; None while it is closed, or waits for a search to make the trial that is due."""
        return self._circuit.trouble()

    def close(self) -> None:
        """Release threads, connections and files; every waiting search gets an error."""
        with self._lock:
            self._closed = True
            waiting = [self._inflight.pop(key) for key in self._waiting]
            self._waiting.clear()
        self._circuit.give_up()
        for wanted in waiting:
            wanted.future.set_exception(self._shut())
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.backend.close()
        if self._recording:
            self._recording.close()

    def _cached(self, key: Key) -> list[Hit] | None:
        """A copy of a known answer; None where there is none. The episodes of a group ask most queries again."""
        with self._lock:
            known = None if self._closed else self._cache.get(key)
            if known is None:
                return None
            self.stats.queries += 1
            self.stats.cached += 1
        return list(known)

    def _outcome(self, wanted: Wanted, asked: float) -> list[Hit] | Exception:
        future = wanted.future
        while True:
            try:
                # Copied, because the same list is in the cache and goes to every search that asked the same.
                return list(future.result(max(0.0, self._left(wanted, asked))))
            except FutureTimeout:
                # Nothing has come in time, or it has come at this very moment.
                if future.done():
                    error = future.exception()
                    return error if isinstance(error, Exception) else list(future.result())
                if self._left(wanted, asked) <= 0:
                    self._leave([wanted])
                    return self._late()
            except Exception as error:
                return error

    async def _awaited(self, wanted: Wanted, asked: float) -> list[Hit]:
        future = wanted.future
        while not future.done():
            if (left := self._left(wanted, asked)) <= 0:
                raise self._late()
            # One at a time: of many that are wrapped at once, those that fail after the first would never be retrieved,
            # which asyncio logs. A time-out cancels the wrapper alone, because `future` is running, for others too.
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(future), left)
        return future.result()

    def _left(self, wanted: Wanted, asked: float) -> float:
        """Seconds that a search which asked at `asked` goes on waiting."""
        return max(asked, wanted.begun or self._answered) + self.options.deadline - time.monotonic()

    def _leave(self, wanted: Sequence[Wanted]) -> None:
        """One search waits for these no more."""
        with self._lock:
            for one in wanted:
                one.searches -= 1

    def _late(self) -> RetrievalUnavailable:
        reason = f" ({self._circuit.reason})" if self._circuit.reason else ""
        return RetrievalUnavailable(f"{self.corpus.name}: no answer within {self.options.deadline:g} s{reason}")

    def _shut(self) -> RetrievalError:
        return RetrievalError(f"{self.corpus.name}: the retriever was closed")

    def _ask_all(self, queries: Sequence[str], top_k: int) -> list[Wanted]:
        check_asked(queries, top_k)
        wanted: list[Wanted] = []
        for query in queries:
            try:
                wanted.append(self._ask((query_text(query), top_k)))
            except RetrievalError as error:  # the gateway is closed, or its recording cannot be read
                wanted.append(Wanted())
                wanted[-1].future.set_exception(error)
        return wanted

    def _ask(self, key: Key) -> Wanted:
        """The answer to a query: known, on its way, or newly in the queue."""
        wanted = Wanted()
        with self._lock:
            self.stats.queries += 1
            known = self._cache.get(key)
        if known is None and self._recording and self.options.mode == "cache":
            known = self._recording.get(*key)
        with self._lock:
            if self._closed:
                raise self._shut()
            if known is None:  # it may have been answered while the recording was read, without the lock
                known = self._cache.get(key)
            if known is None and key in self._inflight:
                self.stats.joined += 1
                wanted = self._inflight[key]
                wanted.searches += 1
                return wanted
            if known is None:
                self._inflight[key] = wanted
                self._waiting.append(key)
                return wanted
            self.stats.cached += 1
            self._keep(key, known)
        wanted.future.set_result(known)
        return wanted

    def _keep(self, key: Key, hits: list[Hit]) -> None:
        if self.options.cache:
            self._cache[key] = hits

    def _work(self, here: bool) -> None:
        """Call the backend for what waits, as far as there is room for calls; the first on this thread if `here`."""
        # A queue, because a semaphore is not fair: with 64 threads at a semaphore some searches waited for seconds.
        with self._lock:
            calls = min(self.concurrency - self._busy, -(-len(self._waiting) // self.max_batch))
            if calls < 1 or self._closed:
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
        """Give back this thread's room for a call, or hand it to a thread of ours where other searches wait."""
        # The caller has its answer and must not be kept working for others.
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
        """The next keys with one top-k, at most `max_batch`, perhaps none. The lock is held."""
        batch: list[Key] = []
        while self._waiting and len(batch) < self.max_batch and (not batch or self._waiting[0][1] == batch[0][1]):
            key = self._waiting.popleft()
            if self._inflight[key].searches:
                batch.append(key)
            else:  # all that waited for it have given up
                del self._inflight[key]
                self.stats.failed += 1
        return batch

    def _answer(self, batch: list[Key]) -> None:
        """Call the backend; every search that waits for these keys gets its answer or the error."""
        if not batch:
            return
        try:
            found = self._call(batch)
            if self._recording:
                self._recording.put([(*key, hits) for key, hits in zip(batch, found, strict=True)])
        except RetrievalUnavailable as error:
            self._settle(batch, error)
        except Exception as error:
            if len(batch) == 1 or self._closed:
                self._settle(batch, self._shut() if self._closed else failure(error, self.corpus.name))
            else:  # a query that cannot be answered must fail alone: ask for each by itself
                for key in batch:
                    self._answer([key])
        except BaseException:
            # Ctrl-C on the caller's own thread: the other searches must not wait for an answer that never comes.
            self._settle(batch, RetrievalUnavailable(f"{self.corpus.name}: interrupted"))
            raise
        else:
            self._settle(batch, found)

    def _settle(self, batch: list[Key], outcome: list[list[Hit]] | Exception) -> None:
        """Give the outcome to every search that waits for these keys."""
        with self._lock:
            futures = [self._inflight.pop(key).future for key in batch]
            if isinstance(outcome, Exception):
                self.stats.failed += len(batch)
            else:
                for key, hits in zip(batch, outcome, strict=True):
                    self._keep(key, hits)
        # Without the lock: setting a result runs the callbacks of `asearch`.
        for place, future in enumerate(futures):
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[place])

    def _call(self, batch: list[Key]) -> list[list[Hit]]:
        """One call of the backend, with its retries."""
        trial = self._circuit.admit()  # waits, or raises, while the circuit is open
        now = time.monotonic()
        for key in batch:  # only now: behind an open circuit a query has not had its turn yet
            self._inflight[key].begun = now
        reason = None
        try:
            return (self._trial if trial else self._tries)(self._once, [query for query, _ in batch], batch[0][1])
        except RetrievalUnavailable as error:
            reason = str(error)
            raise
        finally:
            self._circuit.judge(trial, reason)
            if reason is None:
                self._answered = time.monotonic()

    def _retrying(self, deadline: float) -> Retrying:
        return Retrying(
            stop=stop_before_delay(deadline),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            retry=retry_if_exception_type(RetrievalUnavailable),
            before_sleep=self._before_pause,
            reraise=True,
        )

    def _before_pause(self, state: RetryCallState) -> None:
        self._count(retries=1)
        if state.outcome is not None:
            self._circuit.reason = str(state.outcome.exception())

    def _once(self, queries: list[str], top_k: int) -> list[list[Hit]]:
        if self._closed:  # during a pause between two tries
            raise self._shut()
        self._count(calls=1, sent=len(queries))
        found = self.backend.search(queries, top_k)
        # Only its place says which query an answer is for: one too few would give a query the passages of another.
        if not isinstance(found, list) or len(found) != len(queries):
            said = f"{len(found)} answers" if isinstance(found, list) else type(found).__name__
            raise RetrievalError(f"{self.corpus.name}: {said} came to {len(queries)} queries")
        return [checked(hits, top_k, self.corpus.name) for hits in found]

    def _count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self.stats, name, getattr(self.stats, name) + count)
