"""A run of any algorithm, from the first policy to the last: resume, evaluate, train, save, report."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learners import checkpoint, plugins, policies, resumed, seeds
from learners.algorithms.base import Algorithm
from learners.cluster import Cluster, open_cluster
from learners.config import Config, load_config, resolve
from learners.errors import Fault
from learners.evaluate import evaluate
from learners.loop import learn, roll_out
from learners.metrics import Metrics, question_ids, told
from learners.preflight import check, check_prompts, placement
from learners.report import Reporter, line, say, track
from learners.run_folder import check as check_folder
from learners.run_folder import claim, is_finished, to_go_on
from learners.signals import stop_at_sigterm, uninterrupted
from learners.summary import corpus, summarise


class Run:
    """One run. Its state is what `save` writes: steps done, stages passed, questions asked, results, seconds."""

    def __init__(self, config: Config, folder: Path, cluster: Cluster, report: Reporter) -> None:
        self.config, self.folder, self.cluster, self.report = config, folder, cluster, report
        self.environment = config.environment()
        self.algorithm: Algorithm = plugins.make_algorithm(config.algorithm, config.objective)
        self.measure = plugins.make_metrics(self.environment.metrics)
        self.done = 0
        self.stages_done = 0
        self.questions = 0
        """Questions asked in training so far; the next one's reset seed is that many after the run's first."""
        self.results: dict[str, Any] = {}
        self.asked: set[str] = set()
        """Ids of the questions of evaluations, where the environment reports them."""
        self.trained_on: set[str] = set()
        """Those of them that were trained on, which a split for evaluation prevents."""
        self.saved: int | None = None
        """Steps that the run's checkpoint holds; None where it has none."""

    def resume(self) -> None:
        """Load the state of the run's checkpoint, and remove what was recorded after it."""
        place, state = checkpoint.read_state(self.folder)
        self.cluster.load(place)
        self.done = self.saved = int(state["step"])
        self.stages_done = state.get("stages_done", 0)
        # Checkpoints of older versions do not say; there, every step asked as many questions as it trained on.
        prompts = state.get("config", {}).get("prompts", self.config.prompts)
        self.questions = state.get("questions", self.done * prompts)
        self.asked = self.report.questions()
        self.trained_on = set(state.get("trained_on", []))
        # A run that goes on past its old end is evaluated again there.
        finished = self.done >= self.config.steps
        after = ("_after", "_after_no_search")
        self.results = {k: v for k, v in state["results"].items() if finished or not k.endswith(after)}
        self.report.seconds |= state["seconds"]
        self.report.forget_after(self.done)
        say(f"resuming after step {self.done}")
        if saved := state.get("config"):
            before = resolve({}, saved=saved).model_dump(mode="json")
            for each in resumed.differences(before, self.config.model_dump(mode="json")):
                say(f"  differs from before: {each}")

    def save(self) -> None:
        """Write a checkpoint."""
        state = {
            "step": self.done, "stages_done": self.stages_done, "questions": self.questions, "results": self.results,
            "trained_on": sorted(self.trained_on), "seconds": self.report.seconds,
            "config": self.config.model_dump(mode="json"),
        }  # fmt: skip
        self.cluster.save(self.folder / checkpoint.NAME, state)
        self.saved = self.done

    def train(self) -> None:
        """Make the steps that are left; Ctrl-C and a failing environment save first."""
        config = self.config
        if self.done < config.steps:
            steps = f"steps {self.done + 1} to {config.steps}"
            say(f"training: {steps}, each of {config.prompts} questions x {config.group_size} episodes")
        try:
            for step in track(range(self.done, max(self.done, config.steps)), "training"):
                with self.report.phase("train"):
                    self.step(step)
                if self.done % config.checkpoint_every == 0 and self.done < config.steps:
                    self.save()
            self.save()
        except KeyboardInterrupt:
            say(f"stopping: saving a checkpoint (go on with {to_go_on(self.config, self.folder)})")
            self.save()
            raise
        except Fault as fault:
            say("stopping: saving a checkpoint")
            try:
                self.save()
            except Fault as another:  # e.g. a trainer that is gone
                say(f"  not saved: {another}")
            raise self.ended(fault) from fault

    def ended(self, fault: Fault) -> Fault:
        """The fault that ends the run, with how the run goes on."""
        if self.saved is None:
            return Fault(f"{fault}; nothing was saved yet: begin again")
        go_on = to_go_on(self.config, self.folder)
        return Fault(f"{fault}; the checkpoint after step {self.saved} stands: go on with {go_on}")

    def step(self, step: int) -> None:
        """Step `step`, from 0. Ctrl-C interrupts it while it plays, and waits while it learns."""
        first = seeds.first_question(self.config.seed) + self.questions
        played = roll_out(self.config, self.algorithm, self.cluster, self.measure, self.training_kwargs(), step, first)
        with uninterrupted():
            metrics = played.metrics | learn(self.config, self.algorithm, self.cluster, played.groups, step)
            self.done = step + 1
            self.questions += played.questions
            self.trained_on |= self.asked & question_ids(t for group in played.groups for t in group)
            stages = self.environment.stages[self.stages_done :]
            passed = bool(stages) and metrics["reward"] >= stages[0].until
            self.stages_done += passed
            # Reported when everything is counted: a full disk must not come between the two.
            self.report.metrics(self.done, metrics)
            say(line(self.done, self.config.steps, metrics))
            if passed:
                say("  next stage: " + json.dumps(self.training_kwargs()))

    def evaluation(self, key: str) -> Metrics:
        """What an evaluation found; empty where there was none."""
        end = f"_{key}"
        return {name.removesuffix(end): values for name, values in self.results.items() if name.endswith(end)}

    def trained_on_again(self) -> int | None:
        """Questions of the evaluations that were trained on; None where the environment does not say which they are."""
        if self.trained_on:
            say(
                f"{len(self.trained_on)} of the {len(self.asked)} evaluation questions were trained on: give "
                'evaluation a split of its own, e.g. --eval-env-kwargs \'{"split": "test"}\' (docs/extend.md)'
            )
        return len(self.trained_on) if self.asked else None

    def training_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of the training environment at the present stage."""
        stages = self.environment.stages[self.stages_done :]
        return stages[0].kwargs if stages else self.environment.kwargs

    def evaluate(self, key: str, kwargs: dict[str, Any]) -> None:
        """Evaluate and keep the result under `em_<key>` and so on, unless it is there already."""
        # Every evaluation counts dropped episodes, whatever the environment's metric function measures.
        if self.config.eval_questions == 0 or f"dropped_{key}" in self.results:
            return
        try:
            with self.report.phase(f"evaluate_{key}", f"evaluating {key.replace('_', ' ')}"):
                metrics, episodes = evaluate(self.cluster, self.environment, kwargs, self.config.eval_questions)
            self.results.update({f"{name}_{key}": values for name, values in metrics.items()})
            self.results["questions"] = metrics.get("questions", {})
            asked = sorted(episode.seed for episode in episodes)
            self.results["reset_seeds"] = self.results.get("reset_seeds", {}) | {key: [*asked[:1], *asked[-1:]]}
            self.asked |= question_ids(episodes)
            self.report.episodes(key, episodes)
            self.report.transcripts(key, episodes)
            say(f"  {told(metrics)}")
            self.save()
        except Fault as fault:
            raise self.ended(fault) from fault


def train(config: Config, folder: Path) -> None:
    """One whole run: warm start, evaluation, training, evaluation, report."""
    stop_at_sigterm()
    report = Reporter(folder)
    environment = config.environment()
    searched = corpus(environment)
    say(f"run {folder}")
    with report.phase("warm_start"):
        policy, reference = policies.made(config, folder, say)
        check_prompts(config, policy, environment.kwargs, environment.eval_kwargs)
    with report.phase("start", f"starting {'Ray, ' if config.cluster == 'ray' else ''}engines and trainers"):
        cluster = open_cluster(config, policy, reference=reference)
    with cluster:
        run = Run(config, folder, cluster, report)
        if config.resume:
            run.resume()
        # A dead engine's successor gets its weights in this way, so the first one does, too.
        cluster.publish(run.done)
        run.evaluate("before", environment.eval_kwargs)
        run.train()
        run.evaluate("after", environment.eval_kwargs)
        if environment.blind_kwargs:
            run.evaluate("after_no_search", environment.blind_kwargs)
    results = run.results | {"evaluation_questions_trained_on": run.trained_on_again()}
    try:
        report.curve({0: run.evaluation("before"), run.done: run.evaluation("after")})
        report.summary(summarise(config, searched, results, run.questions, report.history(), report.seconds))
        report.close()
    except Fault as fault:
        raise run.ended(fault) from fault


def run_in(folder: Path, config: Config) -> int:
    """One whole run in its folder, or what is left of it; returns the exit status, as `main` does."""
    finished = is_finished(folder, config)
    if finished:
        say(finished)
    else:
        try:
            train(config, folder)
        except KeyboardInterrupt:
            kept = checkpoint.find(folder)
            say("stopped" if kept else f"stopped before the first checkpoint: nothing is kept, {folder} is removed")
            return 130
        except Fault as error:
            if os.environ.get("RESEARCH_DEBUG"):
                traceback.print_exc()
            sys.stderr.write(f"error: {error}\n")
            return 1
    say(str(folder))
    return 0


def main(arguments: Sequence[str] | None = None, algorithm: str = "grpo") -> int:
    """The command line of every learner.

    Args:
        arguments: Without the program's name; None takes those of the process.
        algorithm: The algorithm where neither a preset nor the command line names one.

    Returns:
        Exit status: 0; 2 for a setting that cannot work; 1 where the run failed; 130 after Ctrl-C.
    """
    try:
        config = load_config(sys.argv[1:] if arguments is None else arguments, algorithm)
        if config.dry_run:
            check_folder(config)
            say(config.model_dump_json(indent=2))
            say(placement(config))
            try:
                check(config)
            finally:
                from learners import room  # it imports torch and transformers

                say(room.table(config))
            return 0
        with claim(config) as folder:
            check(config)
            return run_in(folder, config)
    except (ValueError, Fault) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
