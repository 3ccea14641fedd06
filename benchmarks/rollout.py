"""What the environment costs a rollout: tokens/s of whole episodes against the engine alone.

    python -m benchmarks.rollout --model runs/NAME/checkpoint

Side A plays episodes: environments search, turns are decoded and encoded, and no episode waits for another. Side B has
no environment: the same engine gets the same contexts, turn after turn of each episode in its order, and samples as
many tokens for each as side A did. The sides alternate, so that a busy machine slows both, and each begins with an
empty prefix cache, as a rollout in training does. The bar is 0.80.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners import names
from learners.cluster import placement
from learners.config import Config, load_config
from learners.engines import ENGINES, Engine
from learners.environment import make
from learners.renderers import RENDERERS
from learners.rollout import Limits, Worker
from learners.types import Play, Sampling, Trajectory

BAR = 0.80

Turn = tuple[list[int], int]
"""Context ids, and the tokens that were sampled after them."""


def turns(trajectory: Trajectory) -> list[Turn]:
    """The turns of an episode."""
    return [(trajectory.ids[: turn.start].tolist(), turn.stop - turn.start) for turn in trajectory.turns]


async def play(worker: Worker, config: Config, plays: Sequence[Play]) -> tuple[list[Trajectory], float]:
    """Side A: episodes, and the seconds they took."""
    begun = time.perf_counter()
    rollout = await worker.collect(plays, config.environment().kwargs, config.temperature)
    seconds = time.perf_counter() - begun
    if rollout.retried or rollout.dropped:
        raise SystemExit(f"{rollout.retried} episodes were retried and {rollout.dropped} dropped: no clean measurement")
    return rollout.trajectories, seconds


async def replay(engine: Engine, trajectories: Sequence[Trajectory], config: Config, number: int) -> tuple[int, float]:
    """Side B: the same contexts without an environment, and tokens and seconds."""
    room = asyncio.Semaphore(config.engine.max_sequences * 2)

    async def episode(at: int, trajectory: Trajectory) -> int:
        sampled = 0
        async with room:
            for turn, (context, tokens) in enumerate(turns(trajectory)):
                # The sampling seed that this turn had on side A; no stop strings, so that it has as many tokens.
                seed = number * 10**6 + at * 1_000 + turn
                sampled += len((await engine.generate(context, Sampling(config.temperature, tokens, (), seed))).ids)
        return sampled

    begun = time.perf_counter()
    counts = await asyncio.gather(*(episode(at, trajectory) for at, trajectory in enumerate(trajectories)))
    return sum(counts), time.perf_counter() - begun


async def measure(config: Config, model: str, rounds: int) -> list[dict[str, float]]:
    """One row for each round: tokens and seconds of both sides."""
    engine: Engine = names.load(ENGINES, "--engine.kind", config.engine.kind)(config.engine, model)
    renderer = names.load(RENDERERS, "--renderer", config.renderer)(AutoTokenizer.from_pretrained(model))
    environment = config.environment()
    worker = Worker(
        engine, renderer, lambda kwargs: make(environment.id, kwargs, environment.wrappers),
        Limits(config.engine.max_length, config.max_turn_tokens), concurrency=config.engine.max_sequences * 2,
    )  # fmt: skip
    parameters = AutoModelForCausalLM.from_pretrained(model).float().named_parameters()  # a tied head is not in them
    weights: dict[str, np.ndarray] = {key: value.detach().numpy() for key, value in parameters}
    rows = []
    try:
        for number in range(-1, rounds):  # round -1 warms up: kernels, index, environments
            first = (number + 1) * config.prompts
            plays = [
                Play(first + at // config.group_size, at // config.group_size, (number + 1) * 10**6 + at * 1_000)
                for at in range(config.prompts * config.group_size)
            ]
            await engine.update_weights(weights, number)  # the same ones: it empties the prefix cache
            trajectories, seconds = await play(worker, config, plays)
            sampled = sum(int(trajectory.mask.sum()) for trajectory in trajectories)
            await engine.update_weights(weights, number)
            alone, alone_seconds = await replay(engine, trajectories, config, number + 1)
            if number >= 0:
                rows.append({"episodes": sampled, "s": seconds, "engine": alone, "engine_s": alone_seconds})
    finally:
        await worker.close()
    return rows


def main() -> None:
    """Print a table with one row for each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="policy in Hugging Face format")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default 5)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options, rest = parser.parse_known_args()
    config = load_config(rest)
    # The engine's own process reads these when it starts.
    os.environ.update(placement.environment(config.engine.threads))
    rows = asyncio.run(measure(config, str(options.model.resolve()), options.rounds))
    print(f"{'round':>5}  {'episodes tok/s':>14}  {'engine alone tok/s':>18}  {'ratio':>5}")
    rates = [(row["episodes"] / row["s"], row["engine"] / row["engine_s"]) for row in rows]
    for number, (ours, alone) in enumerate(rates, 1):
        print(f"{number:>5}  {ours:>14,.0f}  {alone:>18,.0f}  {ours / alone:>5.2f}")
    ours, alone = (median(side) for side in zip(*rates, strict=True))
    ratio = median(ours / alone for ours, alone in rates)
    print(f"{'median':>6} {ours:>14,.0f}  {alone:>18,.0f}  {ratio:>5.2f}   (bar {BAR:.2f})")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
