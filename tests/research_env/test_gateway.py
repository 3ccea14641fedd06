"""Between episodes and backend: coalescing, single flight, cache, tries, the circuit, recordings."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval import Corpus, Hit, Passage
from research_env.retrieval.gateway import Gateway, GatewayOptions
from research_env.retrieval.recording import Replay


def hits(query: str, top_k: int) -> list[Hit]:
    return [Hit(Passage(f"{query}{i}", query, f"text {i}"), 1.0 / (i + 1)) for i in range(top_k)]


class Backend:
    """Answers what `hits` says; `during` runs inside every call."""

    settings: dict[str, Any] = {"engine": "test"}

    def __init__(self, max_batch: int = 4, concurrency: int = 1) -> None:
        self.corpus = Corpus("pool", 3, "abc")
        self.max_batch, self.concurrency = max_batch, concurrency
        self.calls: list[list[str]] = []
        self.during: Callable[[], None] = lambda: None

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        self.calls.append(list(queries))
        self.during()
        return [hits(query, top_k) for query in queries]

    def close(self) -> None:
        pass


def failing(backend: Backend, *errors: Exception | None) -> None:
    """The next calls raise these, in turn; None lets one pass, and so do all after the last."""
    left = list(errors)

    def during() -> None:
        if left and (error := left.pop(0)):
            raise error

    backend.during = during


def hold(backend: Backend) -> tuple[threading.Event, threading.Event]:
    """From now on calls tell by the first event that they have begun, and end only once the second is set."""
    busy, free = threading.Event(), threading.Event()

    def during() -> None:
        busy.set()
        free.wait(10)

    backend.during = during
    return busy, free


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


def test_what_fails_for_now_is_tried_again() -> None:
    backend = Backend()
    failing(backend, RetrievalUnavailable("busy"), RetrievalUnavailable("busy"))
    gateway = Gateway(backend)
    assert gateway.search(["a"], 1) == [hits("a", 1)]
    assert (gateway.stats.calls, gateway.stats.retries, gateway.stats.failed) == (3, 2, 0)


@pytest.mark.parametrize("error", [RetrievalError("wrong credentials"), ZeroDivisionError("a bug")])
def test_what_cannot_succeed_is_not_tried_again_and_not_remembered(error: Exception) -> None:
    backend = Backend()
    failing(backend, error)
    gateway = Gateway(backend)
    with pytest.raises(type(error), match=str(error)):
        gateway.search(["a"], 1)
    assert len(backend.calls) == 1
    assert gateway.search(["a"], 1) == [hits("a", 1)]


def nobody_there() -> None:
    raise RetrievalUnavailable("nobody there")


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


QUERIES = ["Élan café", "", "\ud800", 'quo"te\n\0', "北京"]


def test_a_recording_repeats_a_run_without_its_backend(tmp_path: Path) -> None:
    file = str(tmp_path / "run.sqlite")
    first = Gateway(Backend(), GatewayOptions(recording=file, mode="record"))
    found = first.search(QUERIES, 2)
    first.close()
    replay = Gateway(Replay(file), GatewayOptions(recording=file, mode="replay"))
    assert replay.search(QUERIES, 2) == found
    assert replay.corpus == Corpus("pool", 3, "abc")
    with pytest.raises(RetrievalError, match=r"no answer to 'new' with top_k 2.*mode='record'"):
        replay.search(["new"], 2)


def test_a_recording_as_a_cache_asks_only_what_is_new(tmp_path: Path) -> None:
    options = GatewayOptions(recording=str(tmp_path / "run.sqlite"))
    Gateway(Backend(), options).search(["a", "b"], 1)
    backend = Backend()
    assert Gateway(backend, options).search(["a", "c"], 1) == [hits("a", 1), hits("c", 1)]
    assert backend.calls == [["c"]]
    backend = Backend()
    Gateway(backend, options.model_copy(update={"mode": "record"})).search(["a"], 1)
    assert backend.calls == [["a"]], "record asks for everything"


def test_a_recording_of_something_else_is_refused(tmp_path: Path) -> None:
    options = GatewayOptions(recording=str(tmp_path / "run.sqlite"))
    Gateway(Backend(), options)
    other = Backend()
    other.corpus = Corpus("pool", 4, "def")
    with pytest.raises(RetrievalError, match=r"another corpus.*give another file"):
        Gateway(other, options)
    (tmp_path / "text").write_text("no database" * 100)
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE about (key, value)")
    with pytest.raises(RetrievalError, match="is no recording"):
        Replay(tmp_path / "empty.sqlite")
    with pytest.raises(RetrievalError, match=r"recording=.*text"):
        Gateway(Backend(), GatewayOptions(recording=str(tmp_path / "text")))
    with pytest.raises(RetrievalError, match="no such file"):
        Replay(tmp_path / "nowhere")
