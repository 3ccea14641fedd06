"""Threads for work that may never return: such a thread is left behind, and does not keep the process from ending."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any


class NotReturned(Exception):
    """The work has not returned within the limit of time, whose seconds are the argument."""


class Aside:
    """One daemon thread to work on while the caller waits. The waiting ends with the limit, and with Ctrl-C.

    A signal that raises into the work itself would not do: a loop of somebody's with a bare `except:` catches it.
    """

    def __init__(self, limit: float) -> None:
        """Start the thread.

        Args:
            limit: Seconds that a piece of work may take.
        """
        self.limit = limit
        self._held = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._work, name="environment", daemon=True).start()

    def run(self, work: Callable[[], Any]) -> Any:
        """Do some work on the thread, and return what it returns.

        Raises:
            NotReturned: the work has not returned within the limit.
        """
        job = _Job(work, None)
        self._held = True
        self._jobs.put(job)
        try:
            job.future.exception(self.limit)
        except TimeoutError:  # of the waiting alone; one that the work raised is returned
            raise NotReturned(self.limit) from None
        self._held = False
        return job.future.result()

    def end(self, last: Callable[[], Any]) -> None:
        """Let the thread end after some last work; nobody waits for it where earlier work was left there."""
        if self._held:
            self._jobs.put(_Job(last, None))
        else:
            with suppress(NotReturned):
                self.run(last)
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.future.set_result(job.work())
            except BaseException as error:
                job.future.set_exception(error)


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    late: Callable[[], None] | None
    future: Future[Any] = field(default_factory=Future)
    begun: float | None = None
    """Time at which a thread took it."""
    given_up: bool = False
    """Nobody waits for it any more."""
    ends_thread: bool = False
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Taken to settle it and to give it up, so that only one of the two happens."""


class Threads:
    """Up to `size` daemon threads. `ThreadPoolExecutor` would wait for each of its threads when the process ends."""

    def __init__(self, size: int, limit: float) -> None:
        """Threads start when they are needed.

        Args:
            size: Threads that work at once.
            limit: Seconds that a piece of work may take, from when a thread takes it.
        """
        self.size, self.limit = size, limit
        self.lost = 0
        """Threads that were ever left behind."""
        self._threads: set[threading.Thread] = set()
        self._behind: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._busy = 0

    @property
    def held(self) -> int:
        """Threads that are left behind now: their work has still not returned."""
        self._behind = [thread for thread in self._behind if thread.is_alive()]
        return len(self._behind)

    async def run(self, work: Callable[[], Any], late: Callable[[], None] | None = None) -> Any:
        """Do some work on a thread, and return what it returns. It is called from one event loop.

        Args:
            work: Called on a thread.
            late: Called on a thread once the work has returned, if nobody waits for it any more.

        Raises:
            NotReturned: the work has not returned within the limit. Its thread is left behind.
        """
        job = _Job(work, late)
        self._jobs.put(job)
        self._busy += 1
        if len(self._threads) < min(self._busy, self.size):
            self._start()
        try:
            waiting = asyncio.wrap_future(job.future)
            while not waiting.done():
                # Time in the queue does not count.
                left = self.limit if job.begun is None else job.begun + self.limit - time.monotonic()
                if left <= 0 and self._give_up(job, ends_thread=True):
                    raise NotReturned(self.limit)
                await asyncio.wait((waiting,), timeout=max(left, 0.001))
            return waiting.result()
        except asyncio.CancelledError:
            if not self._give_up(job, ends_thread=False) and late is not None:
                self._jobs.put(_Job(late, None))  # the work returned just now
            raise
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Let the threads end, each when its work returns."""
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="environment", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _give_up(self, job: _Job, ends_thread: bool) -> bool:
        """Stop waiting for a job; False where it has been done meanwhile."""
        with job.lock:
            if job.future.done():
                return False
            job.given_up, job.ends_thread = True, ends_thread
        if job.begun is None:
            job.future.cancel()
        if ends_thread and job.thread is not None:
            self._threads.discard(job.thread)
            self._behind.append(job.thread)
            self.lost += 1
            # Others may be waiting for a thread.
            self._start()
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                _call(job.late)  # given up before it began
                continue
            job.thread, job.begun = threading.current_thread(), time.monotonic()
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:
                error = raised
            with job.lock:
                waited_for = not job.given_up
                if waited_for and error is not None:
                    job.future.set_exception(error)
                elif waited_for:
                    job.future.set_result(result)
            if not waited_for:
                _call(job.late)
            if job.ends_thread:
                return


def _call(late: Callable[[], None] | None) -> None:
    if late is not None:
        late()
