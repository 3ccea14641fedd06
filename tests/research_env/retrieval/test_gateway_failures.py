"""What a gateway does when its backend fails: retries, the deadline, the circuit, and which searches fail."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from research_env.errors import RetrievalError, RetrievalUnavailable
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from tests.research_env.retrieval.fake_backend import Backend, failing, hits, hold, nobody_there


def test_what_fails_for_now_is_tried_again() -> None:
    backend = Backend()
    failing(backend, RetrievalUnavailable("busy"), RetrievalUnavailable("busy"))
    gateway = Gateway(backend)
    assert gateway.search(["a"], 1) == [hits("a", 1)]
    assert (gateway.stats.calls, gateway.stats.retries, gateway.stats.failed) == (3, 2, 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RetrievalError("wrong credentials"), "wrong credentials"),
        (ZeroDivisionError("a bug\nof \ud800"), r"pool: the retriever failed \(ZeroDivisionError: a bug of \ufffd\)"),
    ],
)
def test_what_cannot_succeed_is_not_tried_again_and_not_remembered(error: Exception, said: str) -> None:
    backend = Backend()
    failing(backend, error)
    gateway = Gateway(backend)
    with pytest.raises(RetrievalError, match=f"^{said}$") as caught:
        gateway.search(["a"], 1)
    assert error in (caught.value, caught.value.__cause__)
    assert len(backend.calls) == 1
    assert gateway.search(["a"], 1) == [hits("a", 1)]


def test_after_the_deadline_the_circuit_is_open_until_a_trial_succeeds() -> None:
    backend = Backend()
    backend.during = nobody_there
    gateway = Gateway(backend, GatewayOptions(deadline=0.3, cooldown=0.2))
    with pytest.raises(RetrievalUnavailable, match="nobody there"):
        gateway.search(["a"], 1)
    tried = len(backend.calls)
    assert tried > 1
    assert gateway.trouble() == "nobody there"
    time.sleep(0.2)
    assert gateway.trouble() is None, "a trial is due: who asks for health first must not keep searches away"
    with pytest.raises(RetrievalUnavailable, match="nobody there"):
        gateway.search(["a"], 1)
    tried += 1
    start = time.monotonic()
    with pytest.raises(RetrievalUnavailable, match="nobody there"):
        gateway.search(["b"], 1)
    assert time.monotonic() - start > 0.1, "an open circuit asks nobody before the next trial"
    assert len(backend.calls) == tried + 1, "a trial is one call"
    backend.during = lambda: None
    assert gateway.search(["c"], 1) == [hits("c", 1)], "a search waits for the trial and shares its luck"
    assert gateway.trouble() is None
    assert gateway.search(["d"], 1) == [hits("d", 1)]


def test_searches_that_come_during_a_trial_share_its_luck() -> None:
    backend = Backend(max_batch=1, concurrency=4)
    backend.during = nobody_there
    gateway = Gateway(backend, GatewayOptions(deadline=0.1, cooldown=0.1))
    with pytest.raises(RetrievalUnavailable):
        gateway.search(["a"], 1)
    gateway.options.deadline = 5.0
    tried = len(backend.calls)
    busy, free = hold(backend)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(gateway.search, ["b"], 1)
        assert busy.wait(5)
        others = [threads.submit(gateway.search, [query], 1) for query in "cde"]
        time.sleep(0.1)
        assert len(backend.calls) == tried + 1, "one trial at a time"
        free.set()
        assert first.result(5) == [hits("b", 1)]
        assert [other.result(5) for other in others] == [[hits(query, 1)] for query in "cde"]


def test_a_query_that_cannot_be_answered_fails_alone() -> None:
    backend = Backend()
    busy, free = hold(backend)
    gateway = Gateway(backend)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(gateway.search, ["first"], 1)
        assert busy.wait(5)
        others = {query: threads.submit(gateway.search, [query], 1) for query in ("good", "bad", "fine")}
        while len(gateway._waiting) < 3:
            time.sleep(0.01)

        def during() -> None:
            if "bad" in backend.calls[-1]:
                raise RetrievalError("no such syntax")

        backend.during = during
        free.set()
        assert first.result(5) == [hits("first", 1)]
        assert [others[query].result(5) for query in ("good", "fine")] == [[hits("good", 1)], [hits("fine", 1)]]
        with pytest.raises(RetrievalError, match="no such syntax"):
            others["bad"].result(5)
    assert gateway.trouble() is None


def test_searches_that_nobody_waits_for_any_more_are_not_made() -> None:
    backend = Backend()
    busy, free = hold(backend)
    gateway = Gateway(backend, GatewayOptions(deadline=0.2))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(gateway.search, ["a"], 1)
        assert busy.wait(5)
        with pytest.raises(RetrievalUnavailable, match=r"no answer within 0.2 s"):
            gateway.search(["b"], 1)
        free.set()
        with pytest.raises(RetrievalUnavailable):
            first.result(5)
    assert gateway.search(["c"], 1) == [hits("c", 1)]
    assert ["b"] not in backend.calls


def test_everybody_who_waits_for_a_failed_call_is_told() -> None:
    backend = Backend()
    free = threading.Event()

    def during() -> None:
        free.wait(10)
        raise RetrievalError("broken")

    backend.during = during
    gateway = Gateway(backend)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(gateway.search, ["a"], 1) for _ in range(4)]
        while gateway.stats.queries < 4:
            time.sleep(0.001)
        free.set()
        for one in waiting:
            with pytest.raises(RetrievalError, match="broken"):
                one.result(10)


def test_a_backend_that_never_answers_is_given_up() -> None:
    backend = Backend()
    free = threading.Event()
    backend.during = lambda: free.wait(20) and None
    gateway = Gateway(backend, GatewayOptions(deadline=0.1))
    for query in ("a", "b"):
        with pytest.raises(RetrievalUnavailable, match=r"pool: no answer within 0\.1 s"):
            gateway.search([query], 1)
    with pytest.raises(RetrievalUnavailable, match=r"no answer within 0\.1 s"):
        asyncio.run(gateway.asearch(["a"], 1))
    free.set()
    gateway.options = GatewayOptions()
    assert gateway.search(["a", "b"], 1) == [hits("a", 1), hits("b", 1)], "the late answer is an answer"


def test_an_interrupt_costs_the_backend_no_room() -> None:
    """Ctrl-C in a notebook while a search is on its way."""
    backend = Backend(max_batch=1)
    backend.during = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    gateway = Gateway(backend)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            gateway.search(["a"], 1)
    backend.during = lambda: None
    assert gateway.search(["a"], 1) == [hits("a", 1)]


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_query_that_fails_does_not_lose_the_answers_of_the_others(max_batch: int) -> None:
    backend = Backend(max_batch, concurrency=2)
    gateway = Gateway(backend)
    gateway.search(["known"], 1)

    def during() -> None:
        if "bad" in backend.calls[-1]:
            raise RetrievalError("no such syntax")

    backend.during = during
    queries = ["good", "bad", "known", "good", "bad", "fine"]
    found = gateway.outcomes(queries, 1)
    assert [type(one) for one in found] == [list, RetrievalError, list, list, RetrievalError, list]
    assert [one for one in found if isinstance(one, list)] == [hits(q, 1) for q in queries if q != "bad"]
    assert "no such syntax" in str(found[1])
    with pytest.raises(RetrievalError, match="no such syntax"):
        gateway.search(queries, 1)
    assert gateway.outcomes([], 1) == []


def test_all_queries_of_one_call_have_one_deadline() -> None:
    """The first call is answered and the second hangs: what came in time is kept, and nobody waits twice."""
    backend = Backend(max_batch=2)
    free = threading.Event()
    backend.during = lambda: None if len(backend.calls) == 1 else (free.wait(20) and None)
    gateway = Gateway(backend, GatewayOptions(deadline=0.3))
    start = time.monotonic()
    found = gateway.outcomes(["a", "b", "c", "d"], 1)
    assert time.monotonic() - start < 0.55
    free.set()
    assert found[:2] == [hits("a", 1), hits("b", 1)]
    assert [type(one) for one in found[2:]] == [RetrievalUnavailable] * 2


def test_a_backends_own_timeout_is_not_the_deadline() -> None:
    backend = Backend()
    failing(backend, TimeoutError("the disk did not answer"))
    (found,) = Gateway(backend).outcomes(["a"], 1)
    assert type(found) is RetrievalError
    assert str(found) == "pool: the retriever failed (TimeoutError: the disk did not answer)"


def test_a_closed_gateway_is_an_error_for_each_query() -> None:
    gateway = Gateway(Backend())
    gateway.close()
    found = gateway.outcomes(["a", "b"], 1)
    assert [str(one) for one in found] == ["pool: the retriever was closed"] * 2
