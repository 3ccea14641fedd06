"""A training run during which Elasticsearch fails and comes back.

Trains on `ReSearch-Synthetic-v0`, whose corpus is put into the cluster first. After given steps of training, a
command of yours breaks the server; some seconds later another one fixes it. Every search of every episode is written
down with what the policy was shown. Afterwards each query is asked again, of the server that works, and the two are
compared: every difference (the text of a failure, an empty or a partial result) is counted.

    python -m benchmarks.outage --elasticsearch HOST:PORT --break COMMAND --mend COMMAND [--at STEP …]
        [--seconds 10] [--deadline 5] [-- options of learners.grpo]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from research_env.loading import open_corpus
from research_env.protocols.base import Calls
from research_env.retrieval import open_retriever
from research_env.retrieval.elasticsearch.index import IndexSettings, build
from research_env.types import Call, Passage, Result


class Watched(gym.Wrapper[str, str, str, str]):
    """Writes each search and what the policy was shown to a file of this process."""

    def __init__(self, env: gym.Env[str, str], folder: str) -> None:
        super().__init__(env)
        self._file = Path(folder) / f"{os.getpid()}.jsonl"

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        found = super().step(action)
        env: Any = self.unwrapped
        action_taken = env.protocol.parse(action).action
        # The text is empty where a budget ended the episode: then the search was not run.
        if isinstance(action_taken, Calls) and found[0]:
            with self._file.open("a", encoding="utf-8") as file:  # one short write a line: threads do not mix them
                query = action_taken.calls[0].arguments["query"]
                row = {"query": query, "top_k": env.settings.top_k, "shown": found[0]}
                file.write(json.dumps(row) + "\n")
        return found


def watched(seen: str, **kwargs: Any) -> gym.Env[str, str]:
    """`ReSearch-Synthetic-v0`, watched where it has a corpus."""
    env: gym.Env[str, str] = gym.make("research_env:ReSearch-Synthetic-v0", disable_env_checker=True, **kwargs)
    return env if kwargs.get("corpus") == "none" else Watched(env, seen)


# At import, because the workers of the training know the environment only as `benchmarks.outage:Watched-v0`.
gym.register("Watched-v0", entry_point="benchmarks.outage:watched")


def steps_done(run: Path) -> int:
    """Steps that a run has finished."""
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def compare(seen: Path, address: str) -> tuple[int, list[tuple[str, str]]]:
    """Ask every query again: number of searches, and `(query, shown)` of those that were shown anything else."""
    rows = [json.loads(line) for file in seen.glob("*.jsonl") for line in file.read_text("utf-8").splitlines()]
    # A set, because many episodes are shown the same: each is asked again once.
    shown = {(row["query"], row["shown"]) for row in rows}
    (top_k,) = {row["top_k"] for row in rows}  # one value, or the comparison would need one for each search
    protocol: Any = gym.make("research_env:ReSearch-Synthetic-v0").unwrapped.protocol  # type: ignore[attr-defined]
    retriever = open_retriever(address)
    queries = sorted({query for query, _ in shown})
    answers: dict[str, list[Passage]] = {}
    for start in range(0, len(queries), 1_000):
        some = queries[start : start + 1_000]
        for query, hits in zip(some, retriever.search(some, top_k), strict=True):
            answers[query] = [hit.passage for hit in hits]

    def told(query: str) -> str:
        result = Result(Call("1", "search", {"query": query}), passages=tuple(answers[query]))
        text: str = protocol.observation([protocol.content(result)])
        return text

    return len(rows), [(query, text) for query, text in sorted(shown) if text != told(query)]


def main() -> int:
    """Run the experiment and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elasticsearch", required=True, metavar="HOST:PORT")
    parser.add_argument("--break", dest="broken", required=True, metavar="COMMAND")
    parser.add_argument("--mend", required=True, metavar="COMMAND", help="fixes what --break has broken")
    parser.add_argument("--at", type=int, nargs="+", default=[20], metavar="STEP")
    parser.add_argument("--seconds", type=float, default=10.0, help="of outage before --mend; default: %(default)s")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds of a search; default: %(default)s")
    parser.add_argument("--run", type=Path, default=Path("runs/outage"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("training", nargs="*", metavar="OPTION", help="options of learners.grpo, after --")
    options = parser.parse_args()
    address = f"elasticsearch://{options.elasticsearch}/outage"
    build(address, open_corpus("synthetic"), IndexSettings())
    shutil.rmtree(options.run, ignore_errors=True)
    seen = options.run.with_name(f"{options.run.name}-searches").resolve()
    shutil.rmtree(seen, ignore_errors=True)
    seen.mkdir(parents=True)
    kwargs = {"corpus": address, "retrieval": {"deadline": options.deadline}, "seen": str(seen)}
    command = [
        sys.executable, "-m", "learners.grpo", "--env", "research", "--research.id", "benchmarks.outage:Watched-v0",
        "--env-kwargs", json.dumps(kwargs), "--runs", str(options.run.parent), "--name", options.run.name,
        *options.training,
    ]  # fmt: skip
    training = subprocess.Popen(command)
    outages = Table("after step", "broken for s", "step's end s after the fix", title="outages")
    for at in sorted(options.at):
        while training.poll() is None and steps_done(options.run) < at:
            time.sleep(0.2)
        if training.poll() is not None:
            break
        start = time.monotonic()
        subprocess.run(options.broken, shell=True, check=True)
        time.sleep(options.seconds)
        subprocess.run(options.mend, shell=True, check=True, stdout=subprocess.DEVNULL)
        fixed = time.monotonic()
        # The step during the outage must still end: only then is the training known to go on.
        while training.poll() is None and steps_done(options.run) <= at:
            time.sleep(0.2)
        outages.add_row(str(at), f"{fixed - start:.0f}", f"{time.monotonic() - fixed:.0f}")
    if training.wait():
        return training.returncode
    summary = json.loads((options.run / "summary.json").read_text("utf-8"))
    asked, others = compare(seen, address)
    results = Table("what", "value", title="the run")
    for name in ("em_before", "em_after", "searches_after", "em_after_no_search"):
        if name in summary:
            shares = {hops: value for hops, value in summary[name].items() if hops != "all"}
            results.add_row(name, " / ".join(f"{value:.3f}" for value in shares.values()))
    for name, count in summary["episodes"].items():
        results.add_row(f"episodes {name}", f"{count:,.0f}")
    results.add_row("searches shown to the policy", f"{asked:,}")
    results.add_row("of them, other than the corpus answers", f"{len(others):,}")
    console = Console()
    console.print(outages)
    console.print(results)
    for query, text in others[:5]:
        console.print(f"{query!r} was shown {text!r}", markup=False)
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
