"""What the gateway saves, and how fast Elasticsearch indexes and answers.

1. Bulk: passages/s of `index build` over 200,000 passages.
2. 64 episodes in step: 64 threads ask one question each, together, again and again; every search on its own (an
   `_msearch` of one) against the gateway, which sends them as `_msearch`.
3. A load as GRPO's: groups of 8 episodes of one question, half of whose searches repeat one of the group. 64 episodes
   at once, each of which writes for a while (50 ms on average) before it searches again. Queries that reach the
   backend, and milliseconds a search takes, without and with coalescing and cache.

    python -m benchmarks.retrieval_load --data FOLDER --elasticsearch HOST:PORT
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval_scale import THREADS, TOP_K, find_data, generate
from research_env.corpora.reader import open_file
from research_env.retrieval import open_retriever
from research_env.retrieval.base import Retriever
from research_env.retrieval.elasticsearch.index import IndexSettings, build
from research_env.retrieval.elasticsearch.search import open_elasticsearch
from research_env.retrieval.embedded.folder import open_embedded
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.types import Hit

GROUP = 8
THINK = 0.05  # seconds
Find = Callable[[str], list[Hit]]


class Counted:
    """A backend that counts the queries that reach it."""

    def __init__(self, inner: Retriever) -> None:
        self._inner, self.queries, self._lock = inner, 0, threading.Lock()
        self.corpus, self.settings = inner.corpus, inner.settings
        self.max_batch, self.concurrency = inner.max_batch, inner.concurrency

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        with self._lock:
            self.queries += len(queries)
        return self._inner.search(queries, top_k)

    def close(self) -> None:
        self._inner.close()


def in_step(find: Find, queries: Sequence[str], rounds: int) -> float:
    """Queries/s of `THREADS` threads that all ask, wait for each other, and ask again."""
    together = threading.Barrier(THREADS)

    def episode(number: int) -> None:
        for turn in range(rounds):
            together.wait()
            find(queries[(turn * THREADS + number) % len(queries)])

    with ThreadPoolExecutor(THREADS) as threads:
        # The first pass opens connections and is not counted.
        list(threads.map(episode, range(THREADS)))
        start = perf_counter()
        list(threads.map(episode, range(THREADS)))
        return THREADS * rounds / (perf_counter() - start)


def grpo_load(queries: Sequence[str], groups: int) -> list[str]:
    """Searches in the order in which a step's episodes make them: half of a group's repeat another of its own."""
    rng = random.Random(0)
    asked: list[str] = []
    for group in range(groups):
        own = [f"{queries[(group * GROUP + i) % len(queries)]}" for i in range(GROUP // 2)]
        asked += own + [rng.choice(own) for _ in range(GROUP // 2)]
    return asked


def under_load(find: Find, asked: Sequence[str]) -> tuple[float, float]:
    """`(p50, p99)`, milliseconds."""

    def timed(number: int) -> float:
        # The pause depends on the number alone, so that every backend is measured under the same load.
        sleep(random.Random(number).expovariate(1 / THINK))
        start = perf_counter()
        find(asked[number])
        return (perf_counter() - start) * 1000

    with ThreadPoolExecutor(THREADS) as threads:
        p50, p99 = np.percentile(list(threads.map(timed, range(len(asked)))), [50, 99])
    return float(p50), float(p99)


def main() -> int:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="as benchmarks.retrieval")
    parser.add_argument("--elasticsearch", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    pool, questions = find_data(options.data)
    queries = [json.loads(line)["question"] for line in questions.read_text("utf-8").splitlines()]
    console = Console(width=110)

    bulk = Table("passages", "passages/s", title="Elasticsearch: index build")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "passages.jsonl"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in generate(pool, 200_000))
        start = perf_counter()
        # A new name each time: an index that is complete is not built again.
        build(
            f"elasticsearch://{options.elasticsearch}/benchmark-bulk-{int(start)}",
            open_file(file),
            IndexSettings(),
        )
        bulk.add_row("200,000", f"{200_000 / (perf_counter() - start):,.0f}")
    console.print(bulk)

    address = f"elasticsearch://{options.elasticsearch}/benchmark-pool"
    build(address, open_file(pool), IndexSettings())
    step = Table("64 episodes in step", "queries/s", title="Elasticsearch: _msearch against single searches")
    single = open_elasticsearch(address, {})
    step.add_row("single searches", f"{in_step(lambda q: one(single, q), queries, 20):,.0f}")
    gateway = open_retriever(address, cache=0)  # without a cache, so that the batches alone make the difference
    step.add_row("gateway", f"{in_step(lambda q: one(gateway, q), queries, 20):,.0f}")
    console.print(step)

    asked = grpo_load(queries, len(queries) // GROUP * 2)
    load = Table("backend", "through", "queries", "reach it", "p50 ms", "p99 ms", title="groups of 8, half repeats")
    for name, backend in {"elasticsearch": single, "embedded": open_embedded(str(pool), {})}.items():
        one(backend, queries[0])  # the first search of the embedded index reads the disk
        for shared in (False, True):
            counted = Counted(backend)
            way: Retriever = Gateway(counted, GatewayOptions()) if shared else counted
            p50, p99 = under_load(lambda q, w=way: one(w, q), asked)  # type: ignore[misc]
            reached = (f"{len(asked):,}", f"{counted.queries:,}")
            load.add_row(name, "gateway" if shared else "nothing", *reached, f"{p50:.1f}", f"{p99:.1f}")
    console.print(load)
    return 0


def one(backend: Retriever, query: str) -> list[Hit]:
    """One search."""
    return backend.search([query], TOP_K)[0]


if __name__ == "__main__":
    sys.exit(main())
