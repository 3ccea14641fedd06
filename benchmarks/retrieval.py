"""How fast and how good the embedded index is on real passages, with bm25s beside it in the same run.

Over one pool of passages and the questions whose gold passages are in it. The query is the question as it stands.

- latency: milliseconds from query text to passages, top 10, one query a call, after a warm-up; on one thread and on
  two, which then share the queries; `queries/s` is all queries over the wall time.
- recall@k: share of a question's gold passages in the top k, averaged over questions; `all@10` is the share of
  questions with every gold passage in the top 10.

- overlap@5: share of an engine's top 5 that the embedded index has in its own, averaged over questions.

bm25s (numpy backend, English stop words and stemmer, title and text as one field, the same k1 and b) is an independent
implementation of the same ranking: recall should be close, latency is a yardstick. It is left out where not installed.
Elasticsearch (english analyser, most_fields over title and text) is asked where a server is named.

    python -m benchmarks.retrieval --data FOLDER [--elasticsearch HOST:PORT]

FOLDER has `corpus/wiki_pool.jsonl.gz`, lines `{"id", "contents": "\\"Title\\"\\ntext"}`, and `recall/questions.jsonl`,
lines `{"dataset", "question", "gold_passages"}`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from research_env.corpora.reader import open_file
from research_env.errors import ResearchError
from research_env.retrieval.elasticsearch.index import IndexSettings, build
from research_env.retrieval.elasticsearch.search import open_elasticsearch
from research_env.retrieval.embedded.bm25 import open_or_build
from research_env.types import Passage, Pool

TOP_K = 10
Find = Callable[[str], list[str]]
"""Query -> ids of the best `TOP_K` passages, best first, each passage fetched."""


def read(folder: Path) -> tuple[list[Passage], list[dict[str, Any]]]:
    """The pool and the questions."""
    passages = list(open_file(folder / "corpus" / "wiki_pool.jsonl.gz"))
    with (folder / "recall" / "questions.jsonl").open(encoding="utf-8") as lines:
        return passages, [json.loads(line) for line in lines]


def embedded(passages: Sequence[Passage], folder: Path) -> Find:
    """The project's own index, built in `folder`."""
    index = open_or_build(folder, Pool("pool", "benchmark", lambda: passages, lambda: len(passages)))
    return lambda query: [hit.passage.id for hit in index.search([query], TOP_K)[0]]


def with_bm25s(passages: Sequence[Passage], folder: Path) -> Find | None:
    """bm25s over the same passages; None where it is not installed."""
    try:
        import bm25s
        import Stemmer
    except ImportError:
        return None
    tokenizer = bm25s.tokenization.Tokenizer(stopwords="en", stemmer=Stemmer.Stemmer("english"))
    tokens = tokenizer.tokenize([f"{p.title} {p.text}" for p in passages], show_progress=False, return_as="tuple")
    scorer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    scorer.index(tokens, show_progress=False)

    def find(query: str) -> list[str]:
        # A query must not add words to the vocabulary, which the index does not know.
        ids = tokenizer.tokenize([query], update_vocab=False, show_progress=False)
        if not ids[0]:
            return []
        # bm25s fills up with passages of score 0 where fewer than `TOP_K` match.
        found, scores = scorer.retrieve(ids, k=TOP_K, show_progress=False)
        return [passages[i].id for i, score in zip(found[0], scores[0], strict=True) if score > 0]

    return find


def with_elasticsearch(path: Path, server: str) -> Find:
    """An Elasticsearch index of the pool, one search a call."""
    address = f"elasticsearch://{server}/benchmark-pool"
    build(address, open_file(path), IndexSettings())
    retriever = open_elasticsearch(address, {})
    return lambda query: [hit.passage.id for hit in retriever.search([query], TOP_K)[0]]


def overlap(found: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> float:
    """Mean share of the top 5 that both have; a question that neither finds anything for counts as 1."""
    shares = []
    for ours, theirs in zip(found, reference, strict=True):
        either = max(len(ours[:5]), len(theirs[:5]))
        shares.append(len(set(ours[:5]) & set(theirs[:5])) / either if either else 1.0)
    return float(np.mean(shares))


def run(find: Find, queries: Sequence[str], threads: int) -> tuple[list[list[str]], np.ndarray, float]:
    """What was found, `[queries]` milliseconds each, and wall seconds."""

    def timed(query: str) -> tuple[list[str], float]:
        start = perf_counter()
        found = find(query)
        return found, (perf_counter() - start) * 1000

    # The first queries read the index from disk, and are not counted.
    for query in queries[:100]:
        find(query)
    start = perf_counter()
    if threads == 1:
        done = [timed(query) for query in queries]
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(timed, queries, chunksize=1))
    wall = perf_counter() - start
    return [found for found, _ in done], np.array([milliseconds for _, milliseconds in done]), wall


def recall(found: Sequence[Sequence[str]], questions: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Data set, and "all" -> [questions, recall@5, recall@10, all@10]."""
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for ids, question in zip(found, questions, strict=True):
        gold = set(question["gold_passages"])
        at = [len(gold & set(ids[:k])) / len(gold) for k in (5, TOP_K)]
        for name in (question["dataset"], "all"):
            scores[name].append([*at, float(at[1] == 1.0)])
    order = [*sorted(name for name in scores if name != "all"), "all"]
    return {name: [len(scores[name]), *np.mean(scores[name], axis=0)] for name in order}


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--elasticsearch", metavar="HOST:PORT", help="measure this server beside the others")
    options = parser.parse_args()
    folder = options.data
    try:
        passages, questions = read(folder)
    except (OSError, ResearchError) as error:
        print(f"error: {folder} does not hold the pool and the questions: {error}", file=sys.stderr)
        return 2
    queries = [question["question"] for question in questions]
    speed = Table("engine", "build s", "threads", "median ms", "p99 ms", "queries/s")
    speed.title = f"{len(queries):,} queries over {len(passages):,} passages, top {TOP_K}"
    quality = Table("engine", "data set", "questions", "recall@5", "recall@10", "all@10", "overlap@5", title="recall")
    engines: dict[str, Callable[[Sequence[Passage], Path], Find | None]] = {"embedded": embedded, "bm25s": with_bm25s}
    if options.elasticsearch:
        pool = folder / "corpus" / "wiki_pool.jsonl.gz"
        engines["elasticsearch"] = lambda passages, cache: with_elasticsearch(pool, options.elasticsearch)
    reference: list[list[str]] = []
    with tempfile.TemporaryDirectory() as cache:
        for engine, make in engines.items():
            start = perf_counter()
            find = make(passages, Path(cache))
            seconds = perf_counter() - start
            if find is None:
                continue
            found: list[list[str]] = []
            for threads in (1, 2):
                found, times, wall = run(find, queries, threads)
                median, p99 = np.percentile(times, [50, 99])
                rate = f"{len(queries) / wall:,.0f}"
                speed.add_row(engine, f"{seconds:.1f}", str(threads), f"{median:.2f}", f"{p99:.2f}", rate)
            reference = reference or found  # of the first engine, the embedded index
            for name, (count, *values) in recall(found, questions).items():
                same = f"{overlap(found, reference):.3f}" if name == "all" else ""
                quality.add_row(engine, name, f"{count:,.0f}", *(f"{value:.3f}" for value in values), same)
    console = Console()
    console.print(speed)
    console.print(quality)
    return 0


if __name__ == "__main__":
    sys.exit(main())
