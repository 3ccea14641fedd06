"""Evaluate a checkpoint: the same number of greedy episodes for each hop count, scored by the environment."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learners import names, seeds
from learners.cluster import Cluster, open_cluster
from learners.config import Config, resolve
from learners.environment import EnvironmentConfig, opened, reset
from learners.errors import Fault
from learners.metrics import group_of
from learners.plugins import PluginFault
from learners.preflight import check_environment, check_machine
from learners.report import say
from learners.types import Trajectory

Metrics = dict[str, dict[str, float]]
"""Metric -> group -> value, e.g. `{"em": {"1": 0.98, "2": 0.93}}`."""


def choose_seeds(environment: EnvironmentConfig, env_kwargs: Mapping[str, Any], questions: int) -> dict[str, list[int]]:
    """Reset seeds for `questions` different questions of each hop count, in evaluation's half.

    Hop count and identity are what the environment reports at reset (`hops`, `question_id`); an environment that
    reports neither has one group, `"all"`, of the first seeds.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    seen: set[Any] = set()
    patience = number = 0
    with opened(environment, env_kwargs) as env:
        while patience < 1_000:  # seeds in a row without a new question: every group is full, or has no more
            seed = seeds.evaluation_question(number)
            _, info = reset(env, seed)
            group, question = group_of(info), info.get("question_id")
            question = seed if question is None else str(question)
            if question not in seen and len(groups[group]) < questions:
                groups[group].append(seed)
                seen.add(question)
                patience = 0
            patience += 1
            number += 1
            # An environment without hop counts has this one group, so there are no others to look for.
            if group == "all" and len(groups[group]) == questions:
                break
    return {group: chosen for group, chosen in sorted(groups.items()) if chosen}


def evaluate(
    cluster: Cluster, environment: EnvironmentConfig, env_kwargs: Mapping[str, Any], questions: int
) -> tuple[Metrics, list[Trajectory]]:
    """Play `questions` questions of each hop count greedily.

    Args:
        cluster: Plays.
        environment: What is played; its metric function scores the episodes.
        env_kwargs: Keyword arguments of `gym.make`.
        questions: Of each hop count.

    Returns:
        Metric -> hop count -> mean over its questions, and the episodes. A dropped episode is in neither, but is
        counted: `dropped` -> `{"all": n}`.
    """
    measure: Callable[[Sequence[Trajectory]], Metrics] = names.load({}, "metrics", environment.metrics)
    groups = choose_seeds(environment, env_kwargs, questions)
    plays = seeds.evaluation([seed for chosen in groups.values() for seed in chosen])
    rollout = cluster.collect(plays, dict(env_kwargs), 0.0)
    if rollout.reason:
        say(f"  {rollout.failures}")
    measured = measure(rollout.trajectories)
    # It may be somebody else's function.
    if not isinstance(measured, Mapping) or not all(_is_numbers(values) for values in measured.values()):
        raise PluginFault(f"metrics {environment.metrics} returned {measured!r}; give metric -> group -> value")
    return {**measured, "dropped": {"all": rollout.dropped}}, rollout.trajectories


def _is_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(value, int | float) for value in values.values())


def configure(options: argparse.Namespace) -> Config:
    """The configuration of a run that only evaluates.

    Raises:
        ValueError: an option is impossible; the message names it.
    """
    if not (options.checkpoint / "config.json").is_file():
        raise ValueError(f"{options.checkpoint} is not a checkpoint: it has no config.json")
    if options.questions < 1:
        raise ValueError(f"--questions {options.questions}: give 1 or more")
    try:
        env_kwargs = json.loads(options.env_kwargs)
    except ValueError as error:
        raise ValueError(f"--env-kwargs {options.env_kwargs} is not JSON: {error}") from None
    # An absolute path, because actors run in folders of their own.
    given = {
        "preset": options.preset, "env": options.env, "eval_env_kwargs": env_kwargs,
        "model": str(options.checkpoint.resolve()),
    }  # fmt: skip
    if options.cluster:
        given["cluster"] = options.cluster
    if options.engine_kind:
        given["engine"] = {"kind": options.engine_kind}
    return resolve(given)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m learners.evaluate CHECKPOINT …`."""
    parser = argparse.ArgumentParser(prog="python -m learners.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder in Hugging Face format, e.g. runs/NAME/checkpoint")
    parser.add_argument("--preset", default="tiny-cpu", help="preset the policy was trained with (default tiny-cpu)")
    parser.add_argument("--env", default="research", help="as in learners.grpo (default: the preset's environment)")
    parser.add_argument("--env-kwargs", default="{}", help='on top of the preset\'s, JSON, e.g. {"world_seed": 7}')
    parser.add_argument("--questions", type=int, default=500, help="questions of each hop count (default 500)")
    parser.add_argument("--engine.kind", dest="engine_kind", help="as in learners.grpo (default: the preset's)")
    parser.add_argument("--cluster", choices=("ray", "local"), help="as in learners.grpo (default: the preset's)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args(arguments)
    try:
        config = configure(options)
        environment = config.environment()
        check_machine(config, trainers=0)
        check_environment(environment, environment.eval_kwargs)
        if options.json and not options.json.resolve().parent.is_dir():
            raise ValueError(f"--json {options.json}: there is no such folder")
        if options.json and options.json.is_dir():
            raise ValueError(f"--json {options.json} is a folder; give a file")
    except (ValueError, Fault) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    say(f"evaluating {options.checkpoint} on {environment.id} {json.dumps(environment.eval_kwargs)}")
    start = time.monotonic()
    try:
        with open_cluster(config, config.model, trainers=False) as cluster:
            metrics, _ = evaluate(cluster, environment, environment.eval_kwargs, options.questions)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Fault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    result = {
        **metrics,
        "checkpoint": str(options.checkpoint),
        "env": environment.id,
        "env_kwargs": environment.eval_kwargs,
        "seconds": round(time.monotonic() - start, 1),
    }
    say(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
