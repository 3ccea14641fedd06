"""The embedded index at scale, with bm25s and Elasticsearch beside it in the same run.

Passages of about 100 words are generated with the word frequencies of a real pool, and written to a file once; the
build reads that file, as a user's would. Queries are real questions, each asked once, from 64 threads at once through
a gateway without a cache, as 64 episodes ask.

- build: passages/s from the file to a searchable index.
- open: seconds in a fresh process from `open_retriever` to the first answer.
- memory: resident memory of that process after the whole load, MiB, with what it has mapped of the index.

Elasticsearch is asked through the same gateway, and by its own client alone: whole questions, a request each.

    python -m benchmarks.retrieval_scale --data FOLDER --passages 1000000 … [--elasticsearch HOST:PORT] [--bm25s]
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from elasticsearch import Elasticsearch
from rich.console import Console
from rich.table import Table

from research_env.corpora.reader import open_file
from research_env.retrieval import open_retriever
from research_env.retrieval.elasticsearch.index import IndexSettings, build
from research_env.retrieval.embedded.folder import build_folder

THREADS = 64
TOP_K = 5
WORDS = (60, 140)  # a passage
Find = Callable[[str], Any]


def generate(pool: Path, count: int) -> Iterator[dict[str, str]]:
    """`count` passages of random words, as frequent as in the pool; the same ones every time."""
    words: Counter[str] = Counter()
    with gzip.open(pool, "rt", encoding="utf-8") as lines:
        for line in lines:
            words.update(json.loads(line)["contents"].split())
    vocabulary = np.array(list(words), object)
    share = np.array(list(words.values()), float)
    cumulated = np.cumsum(share / share.sum())
    rng = np.random.default_rng(0)
    # In blocks, because the words of millions of passages do not fit into memory at once.
    for start in range(0, count, 10_000):
        lengths = rng.integers(*WORDS, min(10_000, count - start))
        drawn = vocabulary[np.searchsorted(cumulated, rng.random(lengths.sum() + 3 * len(lengths)), "right")]
        at = 0
        for number, length in enumerate(lengths, start):
            title, text = drawn[at : at + 3], drawn[at + 3 : at + 3 + length]
            at += 3 + length
            yield {"id": str(number), "contents": f'"{" ".join(title)}"\n{" ".join(text)}'}


def find_data(folder: Path) -> tuple[Path, Path]:
    """The pool and the questions.

    Raises:
        SystemExit: the folder does not hold them.
    """
    pool, questions = folder / "corpus" / "wiki_pool.jsonl.gz", folder / "recall" / "questions.jsonl"
    if not pool.is_file() or not questions.is_file():
        raise SystemExit(f"error: {folder} does not hold corpus/{pool.name} and recall/{questions.name}")
    return pool, questions


def gateway(address: str) -> Find:
    """The project's way to any corpus, without a cache."""
    retriever = open_retriever(address, cache=0, deadline=600.0)
    return lambda query: retriever.search([query], TOP_K)


def client(address: str) -> Find:
    """Elasticsearch's own client as it comes: the whole question, a request a search, a connection a thread."""
    parts = urlsplit(address)
    server = Elasticsearch(f"http://{parts.netloc}", connections_per_node=THREADS, request_timeout=600.0)

    def find(query: str) -> Any:
        match = {"query": query, "fields": ["title", "text"], "type": "most_fields"}
        return server.search(index=parts.path.strip("/"), query={"multi_match": match}, size=TOP_K)

    return find


def load(way: Callable[[str], Find], address: str, questions: str) -> dict[str, float]:
    """Open a corpus and ask every query from `THREADS` threads: `open`, `rate`, `p50`, `p99` (ms), `memory` (MiB)."""
    queries = [json.loads(line)["question"] for line in Path(questions).read_text("utf-8").splitlines()]
    start = perf_counter()
    find = way(address)
    find(queries[0])
    opened = perf_counter() - start

    def timed(query: str) -> float:
        before = perf_counter()
        find(query)
        return (perf_counter() - before) * 1000

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(timed, queries[:200]))  # not counted: these open connections and read the disk
        start = perf_counter()
        times = list(threads.map(timed, queries))
        wall = perf_counter() - start
    p50, p99 = np.percentile(times, [50, 99])
    memory = psutil.Process().memory_info().rss >> 20
    return {"open": opened, "rate": len(queries) / wall, "p50": p50, "p99": p99, "memory": memory}


def in_a_fresh_process(way: Callable[[str], Find], address: str, questions: Path) -> dict[str, float]:
    """`load` in a process that has done nothing else, so that its memory is that of the engine."""
    code = (
        "import json, sys; from benchmarks import retrieval_scale as scale; "
        "print(json.dumps(scale.load(getattr(scale, sys.argv[1]), *sys.argv[2:])))"
    )
    command = [sys.executable, "-c", code, way.__name__, address, str(questions)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def with_bm25s(file: Path, queries: list[str]) -> tuple[float, float]:
    """bm25s: build seconds, and queries/s of its own batch call on as many threads as there are cores."""
    import bm25s
    import Stemmer

    start = perf_counter()
    texts = [f"{p.title} {p.text}" for p in open_file(file)]
    tokenizer = bm25s.tokenization.Tokenizer(stopwords="en", stemmer=Stemmer.Stemmer("english"))
    tokens = tokenizer.tokenize(texts, show_progress=False, return_as="tuple")
    scorer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    scorer.index(tokens, show_progress=False)
    built = perf_counter() - start
    ids = tokenizer.tokenize(queries, update_vocab=False, show_progress=False)
    start = perf_counter()
    scorer.retrieve(ids, k=TOP_K, show_progress=False, n_threads=psutil.cpu_count() or 1)
    return built, len(queries) / (perf_counter() - start)


def measure(table: Table, count: int, scratch: Path, options: argparse.Namespace) -> None:
    """A row an engine, over `count` passages."""
    pool, questions = find_data(options.data)
    file, folder = scratch / f"{count}.jsonl", scratch / f"index-{count}"
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in generate(pool, count))
    start = perf_counter()
    build_folder(open_file(file), folder)
    rate = count / (perf_counter() - start)
    size = sum(path.stat().st_size for path in folder.iterdir()) >> 20
    add(table, count, "embedded", rate, size, in_a_fresh_process(gateway, str(folder), questions))
    if options.elasticsearch:
        address = f"elasticsearch://{options.elasticsearch}/benchmark-{count}"
        indices = Elasticsearch(f"http://{options.elasticsearch}").indices
        # The index of an earlier run would be complete, and `build` would only read the corpus to compare it.
        indices.delete(index=f"benchmark-{count}", ignore_unavailable=True)
        start = perf_counter()
        build(address, open_file(file), IndexSettings())
        rate = count / (perf_counter() - start)
        size = indices.stats(index=f"benchmark-{count}")["_all"]["total"]["store"]["size_in_bytes"] >> 20
        add(table, count, "elasticsearch", rate, size, in_a_fresh_process(gateway, address, questions))
        add(table, count, "its client alone", None, None, in_a_fresh_process(client, address, questions))
        indices.delete(index=f"benchmark-{count}")
    if options.bm25s:
        queries = [json.loads(line)["question"] for line in questions.read_text("utf-8").splitlines()]
        seconds, speed = with_bm25s(file, queries)
        table.add_row(f"{count:,}", "bm25s", f"{count / seconds:,.0f}", "", "", f"{speed:,.0f}", "", "", "")
    shutil.rmtree(folder)
    file.unlink()


def add(table: Table, count: int, engine: str, rate: float | None, size: int | None, found: dict[str, float]) -> None:
    """A row."""
    built = ["" if number is None else f"{number:,.0f}" for number in (rate, size)]
    asked = (f"{found['rate']:,.0f}", f"{found['p50']:.0f}", f"{found['p99']:.0f}", f"{found['memory']:,.0f}")
    table.add_row(f"{count:,}", engine, *built, f"{found['open']:.2f}", *asked)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="as benchmarks.retrieval")
    parser.add_argument("--passages", type=int, nargs="+", default=[1_000_000], metavar="N")
    parser.add_argument("--elasticsearch", metavar="HOST:PORT", help="measure this server too")
    parser.add_argument("--bm25s", action="store_true", help="measure bm25s too (GiB of memory, minutes)")
    parser.add_argument("--scratch", type=Path, help="folder for passages and indexes; default: a temporary one")
    options = parser.parse_args()
    find_data(options.data)
    columns = ("passages", "engine", "built/s", "MB", "open s", "queries/s", "p50 ms", "p99 ms", "memory MiB")
    table = Table(*columns, title=f"{THREADS} threads, top {TOP_K}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for count in options.passages:
            measure(table, count, Path(scratch), options)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
