"""Evaluate a checkpoint: the same number of greedy episodes for each hop count, scored by the environment."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from learners import checkpoint, plugins, seeds
from learners.cluster import Cluster, open_cluster
from learners.config import Config, resolve
from learners.engines.config import EngineConfig
from learners.environment import EnvironmentConfig, opened, reset
from learners.errors import Fault, writing
from learners.flags import Parser, add
from learners.metrics import Metrics, group_of, in_order
from learners.preflight import check_environment, check_machine, check_prompts
from learners.pretrained import check_folder
from learners.report import say
from learners.settings import changes
from learners.types import Trajectory


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
    return {group: groups[group] for group in in_order(groups) if groups[group]}


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
    measure = plugins.make_metrics(environment.metrics)
    groups = choose_seeds(environment, env_kwargs, questions)
    if short := {group: len(chosen) for group, chosen in groups.items() if len(chosen) < questions}:
        there = ", ".join(f"{group}: {number}" for group, number in short.items())
        say(f"  there are fewer than {questions} questions, and all of them are asked ({there})")
    plays = seeds.evaluation([seed for chosen in groups.values() for seed in chosen])
    rollout = cluster.collect(plays, dict(env_kwargs), 0.0)
    if rollout.reason:
        say(f"  {rollout.failures}")
    measured = {name: dict(values) for name, values in measure(rollout.trajectories).items()}
    return {**measured, "dropped": {"all": rollout.dropped}}, rollout.trajectories


class Options(BaseModel):
    """What the command line of an evaluation may change; whatever it leaves out is as in training."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    preset: str | None = None
    """Preset, or a TOML file's path, whose settings take the place of those in the checkpoint."""
    config: Path | None = None
    """TOML file with settings that go on top."""
    env: str | None = None
    """Gymnasium id of another environment; the run's own may be named, too."""
    env_kwargs: dict[str, Any] = {}
    """Changes to the arguments of the environment in evaluation, JSON, e.g. `{"world_seed": 7}`."""
    renderer: str | None = None
    """As in learners.grpo."""
    max_turn_tokens: int | None = None
    """Tokens the policy may write in one turn."""
    cluster: str | None = None
    """`ray` or `local`."""
    engine: EngineConfig = EngineConfig()


def read(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options of the evaluation itself, and the settings that are given.

    Raises:
        ValueError: a flag is unknown or has no value.
    """
    parser = Parser(
        "python -m learners.evaluate", usage="%(prog)s CHECKPOINT [--setting VALUE ...]", description=__doc__
    )
    parser.add_argument("checkpoint", nargs="?", help="runs/NAME, or another folder in Hugging Face format")
    parser.add_argument("--questions", default="500", help="questions of each hop count (default: 500)")
    parser.add_argument("--json", type=Path, default=None, help="write the result to this file")
    own = "as in training"
    engine = dict.fromkeys(EngineConfig.model_fields, own)
    add(parser, Options, {**dict.fromkeys(Options.model_fields, own), "engine": engine}, {})
    given = parser.read(arguments)
    options = argparse.Namespace(**{name: given.pop(name, None) for name in ("checkpoint", "questions", "json")})
    if options.checkpoint is None:
        raise ValueError("say which checkpoint: python -m learners.evaluate runs/NAME; see --help")
    if not options.questions.isdecimal() or int(options.questions) < 1:
        raise ValueError(f"--questions {options.questions}: give a whole number, 1 or more")
    options.questions = int(options.questions)
    return options, given


def configure(place: Path, given: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The configuration of a run that only evaluates, and where it differs from the checkpoint's own.

    Args:
        place: The checkpoint. Its settings are those of the run that wrote it; without any, a preset's are taken.
        given: What goes on top, as the command line has it.

    Raises:
        ValueError: there is no checkpoint, or a setting is impossible; the message names it.
    """
    check_folder("", place)
    # An absolute path, because actors run in folders of their own.
    settings = {("eval_env_kwargs" if name == "env_kwargs" else name): value for name, value in given.items()}
    settings["model"] = str(place.resolve())
    saved = _saved(place)
    config = resolve(settings, saved=saved, line=True)
    if saved is None:
        return config, [f"{place} does not say how it was trained; the settings are those of --preset {config.preset}"]
    began = resolve({}, saved=saved)
    return config, [f"differs from training: {each}" for each in changes(_what_counts(began), _what_counts(config))]


def find(given: str) -> Path:
    """The checkpoint that is meant by its own folder, or by that of its run."""
    place = Path(given).expanduser()
    return checkpoint.find(place) or checkpoint.present(place)


def _saved(place: Path) -> Mapping[str, Any] | None:
    """The settings that a checkpoint was trained with; None where it does not say."""
    saved = checkpoint.state_of(place).get("config") if (place / checkpoint.STATE_FILE).is_file() else None
    if not isinstance(saved, Mapping):
        return None
    # An algorithm plays no episode, and somebody else's may not be installed here.
    return {name: value for name, value in saved.items() if name not in ("algorithm", "objective")}


def _what_counts(config: Config) -> dict[str, Any]:
    """What decides the episodes of an evaluation: its environment first, argument by argument, then the lengths."""
    environment = config.environment()
    return {
        "env": environment.id, **environment.eval_kwargs,
        "research.wrappers": [each.model_dump() for each in environment.wrappers],
        "research.metrics": environment.metrics, "renderer": config.renderer,
        "max_turn_tokens": config.max_turn_tokens, "engine.max_length": config.engine.max_length,
        "engine.dtype": config.engine.dtype,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m learners.evaluate CHECKPOINT …`; the exit status is that of a learner."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        say("stopped")
        return 130


def _main(arguments: Sequence[str]) -> int:
    try:
        options, given = read(arguments)
        place = find(options.checkpoint)
        config, notes = configure(place, given)
        _check(config, options.json)
    except (ValueError, Fault) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    try:
        result = _evaluated(place, config, notes, options.questions)
        if options.json:
            with writing(options.json):
                options.json.write_text(json.dumps(result, indent=2) + "\n")
    except Fault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _check(config: Config, file: Path | None) -> None:
    """Everything that can be known before the work; raises ValueError or Fault."""
    environment = config.environment()
    if file and not file.resolve().parent.is_dir():
        raise ValueError(f"--json {file}: there is no such folder")
    if file and file.is_dir():
        raise ValueError(f"--json {file} is a folder; give a file")
    check_machine(config, trainers=0)
    check_environment(environment, environment.eval_kwargs)
    check_prompts(config, config.model, environment.eval_kwargs)
    if file:
        with writing(file), file.open("a"):
            pass


def _evaluated(place: Path, config: Config, notes: Sequence[str], questions: int) -> dict[str, Any]:
    """Evaluate, print and return the result."""
    environment = config.environment()
    for note in notes:
        say(note)
    say(f"evaluating {place} on {environment.id} {json.dumps(environment.eval_kwargs)}")
    start = time.monotonic()
    with open_cluster(config, config.model, trainers=False) as cluster:
        metrics, _ = evaluate(cluster, environment, environment.eval_kwargs, questions)
    result = {
        **metrics,
        "checkpoint": str(place),
        "notes": notes,
        "env": environment.id,
        "env_kwargs": environment.eval_kwargs,
        "seconds": round(time.monotonic() - start, 1),
    }
    say(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    sys.exit(main())
