"""What a step of the environment costs besides retrieval.

Plays episodes with the oracle through `gym.make`, times every `step`, and subtracts the time spent inside the search
tool. The rest is the environment's own: parsing the turn, neutralising and joining the passages, keeping evidence,
scoring. The bar is a median of 50 µs over all steps. The clock of the measurement itself, about 0.3 µs, is counted too.

    python -m benchmarks.environment --episodes 2000
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.table import Table

from agents.oracle import OracleAgent
from research_env import ENVIRONMENTS
from research_env.env import ReSearchEnv
from research_env.errors import DataMissing
from research_env.tools.base import Tool
from research_env.types import Call, Result

BAR_US = 50.0
"""Median microseconds of a step besides retrieval that must not be exceeded."""


class Timed(Tool):
    """A tool that adds up the nanoseconds spent in another."""

    def __init__(self, inner: Tool) -> None:
        self._inner, self.spent = inner, 0
        self.name, self.description, self.parameters = inner.name, inner.description, inner.parameters  # type: ignore[misc]
        self.is_search = inner.is_search  # type: ignore[misc]

    def run(self, calls: Sequence[Call]) -> list[Result]:
        start = perf_counter_ns()
        results = self._inner.run(calls)
        self.spent += perf_counter_ns() - start
        return results


def measure(env_id: str, episodes: int, **settings: Any) -> dict[str, np.ndarray]:
    """Kind of action -> `[steps]` microseconds besides retrieval; `"retrieval"` -> what was subtracted; `"whole"`."""
    env = gym.make(env_id, disable_env_checker=True, **settings)
    inner = env.unwrapped
    assert isinstance(inner, ReSearchEnv)
    agent = OracleAgent(env)
    # The tool is replaced inside: from outside the environment nobody can tell its time from that of the step.
    timed = inner.tools["search"] = Timed(inner.tools["search"])
    found: dict[str, list[float]] = {"search": [], "answer": [], "retrieval": [], "whole": []}
    for seed in range(episodes):
        observation, info = env.reset(seed=seed)
        ended = False
        while not ended:
            # The agent is asked before the clock starts: its time is not the environment's.
            turn = agent.act(observation, info)
            before = timed.spent
            start = perf_counter_ns()
            observation, _, terminated, truncated, info = env.step(turn)
            total = perf_counter_ns() - start
            retrieval = timed.spent - before
            found[info["action"]].append((total - retrieval) / 1000)
            found["whole"].append(total / 1000)
            if retrieval:
                found["retrieval"].append(retrieval / 1000)
            ended = terminated or truncated
    return {kind: np.array(times) for kind, times in found.items()}


def main() -> int:
    """Print the table; exit status 1 where an environment misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=ENVIRONMENTS, action="append", help="environment; default: all")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the medians as JSON instead")
    arguments = parser.parse_args()
    table = Table("environment", "steps", "what", "median µs", "p90 µs", "p99 µs", title="a step besides retrieval")
    medians: dict[str, float] = {}
    for env_id in arguments.env or ENVIRONMENTS:
        try:
            times = measure(env_id, arguments.episodes)
        except DataMissing as error:
            Console(stderr=True).print(f"{env_id} left out: {error}", soft_wrap=True)
            continue
        # All steps together, because an answer costs more than a search and an episode has one.
        ours = np.concatenate([times["search"], times["answer"]])
        medians[env_id] = float(np.median(ours))
        rows = {
            "all steps": ours,
            "search": times["search"],
            "answer": times["answer"],
            "(retrieval)": times["retrieval"],
            "(with it)": times["whole"],
        }
        for what, values in rows.items():
            spread = (f"{np.percentile(values, at):.1f}" for at in (50, 90, 99))
            table.add_row(env_id, f"{len(values):,}", what, *spread)
    if arguments.json:
        print(json.dumps({"median_us": medians, "bar_us": BAR_US}))
    else:
        Console().print(table)
    missed = {env_id: median for env_id, median in medians.items() if median > BAR_US}
    if missed:
        print(f"over the bar of {BAR_US:g} µs: {missed}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
