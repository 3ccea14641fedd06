"""What environments share: loaded once for a key, a lock for each key, and what a child process keeps."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env import loading
from research_env.errors import ConfigurationError, DataMissing
from research_env.loading import DatasetKey, Once
from research_env.questions.base import Splits
from research_env.retrieval.gateway.gateway import Gateway
from research_env.types import Dataset, Passage, Pool, Question

SYNTHETIC = "ReSearch-Synthetic-v0"
SMALL = DatasetKey("synthetic", '{"num_entities": 100}')
BOOKS = [
    Passage("p0", "Amber Kesh", "Amber Kesh is a novel by Bram Tovik."),
    Passage("p1", "Bram Tovik", "Bram Tovik was born in Lundor Quay."),
]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Nothing is loaded when a test begins, and nothing stays loaded when it ends."""
    loading.forget()
    yield
    loading.forget()


# Locks.


def test_a_slow_load_of_one_key_does_not_block_another() -> None:
    busy, free = threading.Event(), threading.Event()

    def load(key: str) -> str:
        if key == "slow":
            busy.set()
            assert free.wait(10)
        return key

    once = Once(load)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(once, "slow")
        assert busy.wait(10)
        assert threads.submit(once, "fast").result(5) == "fast"
        assert not slow.done()
        free.set()
        assert slow.result(10) == "slow"


def test_an_index_that_is_built_stalls_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment waits for its index; another goes on searching and a third is made."""
    busy, free = threading.Event(), threading.Event()
    other = gym.make(SYNTHETIC, num_entities=100, disable_env_checker=True)
    other.reset(seed=0)
    other.step("<think> x </think> <search> Bram </search>")

    def slow() -> Iterator[Passage]:
        busy.set()
        assert free.wait(20)
        yield from BOOKS

    pool = Pool("books", "slow", slow, lambda: len(BOOKS))
    monkeypatch.setitem(globals(), "load_books", lambda: Dataset("books", load_bare().splits, pool))
    waiting = gym.make(SYNTHETIC, dataset=f"{__name__}:load_books", disable_env_checker=True)
    waiting.reset(seed=0)
    with ThreadPoolExecutor(1) as threads:
        searching = threads.submit(waiting.step, "<think> x </think> <search> Amber Kesh </search>")
        assert busy.wait(10)
        *_, info = other.step("<think> x </think> <search> Kelmon </search>")
        assert info["action"] == "search"
        gym.make(SYNTHETIC, num_entities=101, disable_env_checker=True).reset(seed=0)
        assert not searching.done()
        free.set()
        assert searching.result(20)[-1]["passage_ids"] == ["p0"]


def load_bare() -> Dataset:
    return Dataset("bare", {"train": [Question("b0", "Who?", ("I",), 1)]}, None)


def test_threads_that_ask_for_one_key_load_it_once() -> None:
    calls: list[int] = []

    def load(key: int) -> object:
        calls.append(key)
        time.sleep(0.05)
        return object()

    once = Once(load)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda i: once(i % 2), range(64)))
    assert sorted(calls) == [0, 1]
    assert len({id(one) for one in found}) == 2


def test_a_load_that_fails_is_tried_again() -> None:
    """By those who waited for it, and by those who come later."""
    busy, free = threading.Event(), threading.Event()
    errors: list[Exception] = [ConfigurationError("first"), ConfigurationError("second")]

    def load(key: str) -> str:
        busy.set()
        assert free.wait(10)
        if errors:
            raise errors.pop(0)
        return key

    once = Once(load)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(once, "a")
        assert busy.wait(10)
        second = threads.submit(once, "a")
        free.set()
        said = {str(one.exception(10)) for one in (first, second)}
    assert said == {"first", "second"}
    assert once("a") == "a"


def test_what_was_asked_for_before_forgetting_is_not_kept_after_it() -> None:
    busy, free = threading.Event(), threading.Event()
    versions = iter((1, 2))

    def load() -> int:
        version = next(versions)
        if version == 1:
            busy.set()
            assert free.wait(10)
        return version

    once: Once[*tuple[()], int] = Once(load)
    with ThreadPoolExecutor(1) as threads:
        before = threads.submit(once)
        assert busy.wait(10)
        once.forget()
        assert once() == 2, "forgetting does not wait for the load"
        free.set()
        assert before.result(10) == 1
    assert once() == 2


def test_a_load_that_asks_for_itself_ends() -> None:
    once: Once[str, str] = Once(lambda key: once(key))
    with ThreadPoolExecutor(1) as threads, pytest.raises(RecursionError):
        threads.submit(once, "a").result(30)


def test_results_are_bounded() -> None:
    calls: list[int] = []
    once = Once(lambda key: calls.append(key) or key)  # type: ignore[func-returns-value]
    for key in range(1_000):
        assert once(key) == once(key) == key
    assert calls == list(range(1_000))
    assert once(0) == 0
    assert calls[-1] == 0, "the oldest was forgotten"


# Retrievers.


def test_threads_that_come_at_once_open_one_retriever() -> None:
    with ThreadPoolExecutor(16) as threads:
        opened = list(threads.map(lambda _: loading.retriever(SMALL, "pooled", "{}"), range(16)))
    assert len({id(retriever) for retriever in opened}) == 1


def test_a_child_process_opens_its_own_retriever() -> None:
    """A connection that two processes write to mixes their searches."""
    mine = loading.retriever(SMALL, "pooled", "{}")
    assert loading.retriever(SMALL, "pooled", "{}") is mine
    child = os.fork()
    if child == 0:
        os._exit(loading.retriever(SMALL, "pooled", "{}") is mine)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_process_keeps_what_was_read_and_not_the_locks() -> None:
    """A data set takes seconds to read. A lock that a thread held at the fork would never be released."""
    found = loading.dataset(SMALL)
    kept = Splits({"train": lambda: [1], "dev": lambda: [2]})  # type: ignore[list-item]
    assert kept["train"] == [1]
    kept._locks["dev"].acquire()
    child = os.fork()
    if child == 0:
        os._exit(not (loading.dataset(SMALL) is found and kept["train"] == [1] and kept["dev"] == [2]))
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    busy, free = threading.Event(), threading.Event()

    def load(key: int) -> int:
        busy.set()
        free.wait(10)
        return key

    once = Once(load)
    loader = threading.Thread(target=once, args=(1,))
    loader.start()
    assert busy.wait(10)
    child = os.fork()
    if child == 0:
        once.renew_locks()  # as `loading` does for its own after a fork
        free.set()
        os._exit(once(1) - 1)
    ended = time.monotonic() + 10
    status = (0, 1)
    while time.monotonic() < ended and (status := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.kill(child, 9)
    free.set()
    loader.join(10)
    assert status == (child, 0)


def test_every_retriever_is_a_gateway(tmp_path: Path) -> None:
    file = tmp_path / "books.jsonl"
    file.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in BOOKS))
    for address in ("none", "pooled", str(file)):
        assert isinstance(loading.retriever(SMALL, address, "{}"), Gateway)
    assert loading.retriever(SMALL, "none", '{"timeout": 3}').search(["x"], 5) == [[]]


def test_the_corpus_is_a_new_dictionary_each_time() -> None:
    first = loading.corpus(SMALL, "pooled", "{}")
    assert (first["name"], first["passages"]) == ("synthetic", 100)
    first["name"] = "mine"
    assert loading.corpus(SMALL, "pooled", "{}")["name"] == "synthetic"
    assert loading.corpus(SMALL, "none", "{}") == {"name": "none", "passages": 0, "hash": None}


def test_positions_are_those_of_the_questions() -> None:
    for hops in (None, (2,), (1, 2, 2)):
        questions = loading.questions(SMALL, "dev", hops)
        positions = loading.positions(SMALL, "dev", hops)
        assert all(questions[at].id == ident for ident, at in positions.items())
        assert positions is loading.positions(SMALL, "dev", hops)


# Corpora.


def test_a_data_sets_pool_is_a_corpus(musique_home: Path) -> None:
    reader = loading.open_corpus("musique")
    passages = list(reader)
    assert len(passages) == reader.total == reader.content.passages
    assert list(reader.again()) == passages


def test_neither_file_nor_data_set() -> None:
    with pytest.raises(ConfigurationError, match=r"'nowhere' is neither a file nor a data set.*musique"):
        loading.open_corpus("nowhere")
    with pytest.raises(ConfigurationError, match=r"did you mean 'musique'"):
        loading.open_corpus("musiqe")
    with pytest.raises(ConfigurationError, match="neither a file nor a data set"):
        loading.open_corpus("elasticsearch://host/wiki")
    with pytest.raises(ConfigurationError, match="neither a file nor a data set"):
        loading.open_corpus("x" * 300)
    with pytest.raises(DataMissing):
        loading.open_corpus("musique")
