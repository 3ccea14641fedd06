"""Between episodes and backend: coalescing, single flight, cache, threads and coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.types import Hit
from tests.research_env.retrieval.fake_backend import Backend, hits, hold


def test_answers_come_in_the_order_of_the_queries_and_are_remembered() -> None:
    backend = Backend()
    gateway = Gateway(backend)
    assert gateway.search(["a", "b", "a"], 2) == [hits("a", 2), hits("b", 2), hits("a", 2)]
    assert gateway.search(["b"], 2) == [hits("b", 2)]
    assert backend.calls == [["a", "b"]]
    assert gateway.search(["b"], 3) == [hits("b", 3)], "another top-k is another question"
    assert backend.calls == [["a", "b"], ["b"]]
    assert (gateway.stats.queries, gateway.stats.sent, gateway.stats.joined, gateway.stats.cached) == (5, 3, 1, 1)
    assert gateway.search([], 5) == []


def test_without_a_cache_every_query_is_asked_again() -> None:
    backend = Backend()
    gateway = Gateway(backend, GatewayOptions(cache=0))
    assert gateway.search(["a"], 1) == gateway.search(["a"], 1) == [hits("a", 1)]
    assert len(backend.calls) == 2


def test_the_cache_forgets_what_was_not_asked_for_longest() -> None:
    backend = Backend()
    gateway = Gateway(backend, GatewayOptions(cache=2))
    for query in ("a", "b", "a", "c", "a", "b"):
        gateway.search([query], 1)
    assert backend.calls == [["a"], ["b"], ["c"], ["b"]]


def test_queries_that_wait_go_out_together_and_identical_ones_once() -> None:
    backend = Backend(max_batch=4)
    busy, free = hold(backend)
    gateway = Gateway(backend)
    with ThreadPoolExecutor(12) as threads:
        first = threads.submit(gateway.search, ["first"], 1)
        assert busy.wait(10)
        others = [threads.submit(gateway.search, [f"q{i % 5}"], 1) for i in range(10)]
        again = threads.submit(gateway.search, ["first"], 1)
        while gateway.stats.queries < 12:
            time.sleep(0.001)
        free.set()
        assert [other.result(10)[0] for other in others] == [hits(f"q{i % 5}", 1) for i in range(10)]
        assert first.result(10) == again.result(10) == [hits("first", 1)]
    assert backend.calls[0] == ["first"]
    assert sorted(len(call) for call in backend.calls[1:]) == [1, 4]
    assert sorted(query for call in backend.calls[1:] for query in call) == [f"q{i}" for i in range(5)]
    assert gateway.stats.joined == 6


def test_no_more_calls_at_once_than_the_backend_takes() -> None:
    backend = Backend(max_batch=1, concurrency=3)
    at_once, most, lock = 0, 0, threading.Lock()

    def during() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1

    backend.during = during
    gateway = Gateway(backend)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda i: gateway.search([str(i)], 1)[0], range(40))) == [
            hits(str(i), 1) for i in range(40)
        ]
    assert most == 3
    assert gateway.search([f"of one caller {i}" for i in range(10)], 1)[9] == hits("of one caller 9", 1)
    assert most == 3


def test_a_backend_that_takes_one_query_a_call_is_called_on_the_callers_own_thread() -> None:
    backend = Backend(max_batch=1)
    seen: list[threading.Thread] = []
    backend.during = lambda: seen.append(threading.current_thread())
    Gateway(backend).search(["a"], 1)
    assert seen == [threading.current_thread()]


def test_the_event_loop_goes_on_meanwhile() -> None:
    backend = Backend()
    backend.during = lambda: time.sleep(0.2)
    gateway = Gateway(backend)

    async def both() -> int:
        search = asyncio.create_task(gateway.asearch(["a"], 1))
        ticks = 0
        while not search.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert await search == [hits("a", 1)]
        return ticks

    assert asyncio.run(both()) > 5


def test_who_waits_is_told_when_the_gateway_closes() -> None:
    backend = Backend()
    busy, free = hold(backend)
    gateway = Gateway(backend)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(gateway.search, ["a"], 1)
        assert busy.wait(10)
        waiting = threads.submit(gateway.search, ["b"], 1)
        while gateway.stats.queries < 2:
            time.sleep(0.001)
        gateway.close()
        with pytest.raises(RetrievalError, match="was closed"):
            waiting.result(5)
        free.set()
    with pytest.raises(RetrievalError, match="was closed"):
        gateway.search(["c"], 1)


def test_what_a_caller_does_with_an_answer_is_the_callers_own() -> None:
    gateway = Gateway(Backend())
    gateway.search(["a"], 2)[0].clear()
    assert gateway.search(["a"], 2) == [hits("a", 2)]


def test_coroutines_share_calls() -> None:
    backend = Backend(max_batch=64)
    backend.during = lambda: time.sleep(0.02)
    gateway = Gateway(backend)

    async def many() -> list[list[list[Hit]]]:
        return await asyncio.gather(*(gateway.asearch([f"q{i}"], 1) for i in range(64)))

    assert asyncio.run(many()) == [[hits(f"q{i}", 1)] for i in range(64)]
    assert len(backend.calls) <= 3


def test_a_backend_that_answers_too_little_is_not_believed() -> None:
    backend = Backend()
    backend.search = lambda queries, top_k: []  # type: ignore[method-assign]
    with pytest.raises(RetrievalError, match="0 answers came to 1 queries"):
        Gateway(backend).search(["a"], 1)


def test_top_k_is_at_least_one() -> None:
    with pytest.raises(ConfigurationError, match="top_k=0"):
        Gateway(Backend()).search(["a"], 0)
