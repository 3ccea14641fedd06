"""A deadline counts from when a query's turn comes: large batches are served, a dead backend is given up in time."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable

import pytest

from research_env.errors import RetrievalError, RetrievalUnavailable
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.types import Hit
from tests.research_env.retrieval.fake_backend import Backend, hits, hold, nobody_there

Find = Callable[[Gateway, list[str]], list[list[Hit]]]
WAYS = {
    "threads": lambda gateway, queries: gateway.search(queries, 1),
    "coroutines": lambda gateway, queries: asyncio.run(gateway.asearch(queries, 1)),
}
BATCH = [f"q{i}" for i in range(128)]


@pytest.fixture(params=WAYS)
def find(request: pytest.FixtureRequest) -> Find:
    return WAYS[request.param]


@pytest.mark.parametrize(("max_batch", "pause"), [(4, 0.04), (1, 0.01)])
def test_a_batch_is_not_late_while_the_backend_goes_on_answering(find: Find, max_batch: int, pause: float) -> None:
    """One and a half deadlines in all."""
    backend = Backend(max_batch)
    backend.during = lambda: time.sleep(pause)
    gateway = Gateway(backend, GatewayOptions(deadline=0.8))
    start = time.monotonic()
    assert find(gateway, BATCH) == [hits(query, 1) for query in BATCH]
    assert time.monotonic() - start > 1.1


def test_a_batch_over_a_dead_backend_is_given_up_after_one_deadline(find: Find) -> None:
    backend = Backend()
    backend.during = nobody_there
    gateway = Gateway(backend, GatewayOptions(deadline=0.4))
    start = time.monotonic()
    with pytest.raises(RetrievalUnavailable, match="nobody there"):
        find(gateway, BATCH)
    assert time.monotonic() - start < 2, "with a trial for each of the 32 calls it would be 6 s"
    while gateway._waiting:  # the queue is emptied by a thread of the gateway
        time.sleep(0.01)
    assert time.monotonic() - start < 2
    # Two calls at once, and those that began before the first had failed for a whole deadline.
    assert {query for call in backend.calls for query in call} <= set(BATCH[:16]), "no queue of trials for nobody"


def test_a_backend_that_dies_in_the_middle_of_a_batch(find: Find) -> None:
    backend = Backend()
    backend.during = lambda: time.sleep(0.1) if len(backend.calls) < 6 else nobody_there()
    gateway = Gateway(backend, GatewayOptions(deadline=0.4))
    start = time.monotonic()
    with pytest.raises(RetrievalUnavailable, match="nobody there"):
        find(gateway, BATCH)
    assert 0.5 < time.monotonic() - start < 3
    assert gateway.stats.cached == 0
    backend.during = lambda: None
    assert gateway.search(BATCH[:20], 1) == [hits(query, 1) for query in BATCH[:20]], "what came in time is kept"
    assert gateway.stats.cached == 20


def test_a_call_that_hangs_is_late_although_others_are_answered() -> None:
    backend = Backend(max_batch=1, concurrency=2)
    free = threading.Event()
    backend.during = lambda: (free.wait(20) and None) if backend.calls[-1] == ["hangs"] else time.sleep(0.02)
    gateway = Gateway(backend, GatewayOptions(deadline=0.3))
    others = threading.Thread(target=gateway.search, args=([f"q{i}" for i in range(100)], 1))

    async def both() -> float:
        start = time.monotonic()
        hanging = asyncio.create_task(gateway.asearch(["hangs"], 1))
        await asyncio.sleep(0.01)
        others.start()
        with pytest.raises(RetrievalUnavailable, match=r"no answer within 0.3 s"):
            await hanging
        return time.monotonic() - start

    assert asyncio.run(both()) < 1
    free.set()
    others.join()


def test_a_search_that_was_cancelled_is_not_made_for_nobody() -> None:
    backend = Backend()
    busy, free = hold(backend)
    gateway = Gateway(backend)

    async def cancelled() -> list[list[Hit]]:
        first = asyncio.create_task(gateway.asearch(["first"], 1))
        await asyncio.to_thread(busy.wait, 5)
        gone = asyncio.create_task(gateway.asearch(["gone", "shared"], 1))
        stays = asyncio.create_task(gateway.asearch(["shared"], 1))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        free.set()
        return await first + await stays

    assert asyncio.run(cancelled()) == [hits("first", 1), hits("shared", 1)]
    assert backend.calls == [["first"], ["shared"]]


@pytest.mark.parametrize("error", [RetrievalError("broken"), RetrievalUnavailable("down")])
@pytest.mark.parametrize("late", [False, True])
def test_no_error_is_left_that_nobody_retrieved(error: Exception, late: bool, caplog: pytest.LogCaptureFixture) -> None:
    """All queries of a batch fail, after the search has been given up or before; asyncio would log what it finds."""
    backend = Backend(max_batch=1)
    free = threading.Event()

    def during() -> None:
        free.wait(10)
        raise error

    backend.during = during
    gateway = Gateway(backend, GatewayOptions(deadline=0.2 if late else 0.5, cooldown=0.01))

    async def many() -> list[type]:
        if not late:
            free.set()
        searches = [gateway.asearch([f"a{i}", f"b{i}", "c"], 1) for i in range(4)]
        # Only the types, because an error holds on to the frames in which it was raised, and to the futures in them.
        found = [type(one) for one in await asyncio.gather(*searches, return_exceptions=True)]
        free.set()
        await asyncio.sleep(0.3)  # the answers come after all have given up
        return found

    with caplog.at_level(logging.ERROR, "asyncio"):
        found = asyncio.run(many())
        gc.collect()
    assert found == [RetrievalUnavailable if late else type(error)] * 4
    assert [record.message for record in caplog.records if "never retrieved" in record.message] == []
