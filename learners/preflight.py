"""What a run checks before any work starts."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from learners.config import Config
from learners.engines import ENGINES
from learners.environment import make
from learners.objectives import ALGORITHMS


def check(config: Config) -> None:
    """What can be known to be impossible before a run starts.

    Raises:
        ValueError: a setting cannot work on this machine or with the others.
        EnvironmentFault: the environment cannot be made.
    """
    check_machine(config, trainers=config.trainer.count)
    environment = config.environment()
    used = [environment.kwargs, environment.eval_kwargs, *(stage.kwargs for stage in environment.stages)]
    check_environment(environment.id, *used, environment.blind_kwargs or environment.eval_kwargs)


def check_environment(env_id: str, *kwargs: dict[str, Any]) -> None:
    """Raises as `check` does: the environment cannot be made with each of these keyword arguments."""
    if not env_id:
        raise ValueError("--env research: this preset names no environment of its own; give a gymnasium id")
    for each in kwargs:
        make(env_id, each).close()


def check_machine(config: Config, trainers: int) -> None:
    """Raises as `check` does: the settings, with so many trainers, do not fit this machine."""
    if config.algorithm not in ALGORITHMS:
        raise ValueError(f"--algorithm {config.algorithm} is unknown; known: {', '.join(ALGORITHMS)}")
    if config.engine.kind not in ENGINES and ":" not in config.engine.kind:
        raise ValueError(f"--engine.kind {config.engine.kind} is unknown; known: {', '.join(ENGINES)}, or module:Class")
    if config.model != "tiny":
        try:
            AutoConfig.from_pretrained(config.model)
        except (OSError, ValueError) as error:
            raise ValueError(f"--model {config.model}: {str(error).splitlines()[0]}") from None
    if config.engine.kind == "vllm" and find_spec("vllm") is None:
        raise ValueError(
            "--engine.kind vllm: vLLM is not installed; pip install 'research-gym[cpu]' (or [gpu]), "
            "or take --engine.kind transformers"
        )
    if config.model == "tiny" and config.tiny.hidden % (32 * config.tiny.heads):
        raise ValueError(
            f"--tiny.hidden {config.tiny.hidden}: give a multiple of 32 for each of the {config.tiny.heads} heads"
        )
    engine_gpus = config.engine.count * config.engine.tensor_parallel * (config.engine.device == "cuda")
    gpus = engine_gpus + trainers * (config.trainer.device == "cuda")
    if gpus and "RAY_ADDRESS" not in os.environ and torch.cuda.device_count() < gpus:
        raise ValueError(
            f"this configuration needs {gpus} GPUs ({engine_gpus} for engines), and this machine has "
            f"{torch.cuda.device_count()}; lower --engine.count and --trainer.count, take --preset tiny-cpu, "
            "or set RAY_ADDRESS to a cluster that has them"
        )
    _check_cluster(os.environ.get("RAY_ADDRESS", ""))


def _check_cluster(address: str) -> None:
    """Ray itself waits a minute for a cluster that is not there, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # "", "auto" and "local" name no machine
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}); start it, or unset it"
        ) from None


def placement(config: Config) -> str:
    """Which actors run where, for a person."""
    engine, trainer = config.engine, config.trainer
    each = f"{engine.tensor_parallel} GPU" if engine.device == "cuda" else f"{engine.threads} threads"
    own = "1 GPU" if trainer.device == "cuda" else f"{trainer.threads} threads"
    return (
        f"engines: {engine.count} x {engine.kind} on {engine.device}, {each} each; "
        f"trainers: {trainer.count} on {trainer.device}, {own} each; this machine: {os.cpu_count()} cores, "
        f"{torch.cuda.device_count()} GPUs"
    )


def choose_folder(config: Config) -> Path:
    """The run's folder: `runs/<name>`, or the next free `runs/<preset>-<number>`.

    Raises:
        ValueError: the name is taken, or `resume` was asked for without a name.
    """
    if config.resume and not config.name:
        raise ValueError("--resume: say which run with --name NAME")
    if config.name:
        folder = config.runs / config.name
        begun = (folder / "checkpoint").exists() or (folder / "checkpoint.old").exists()
        if begun and not config.resume:
            raise ValueError(
                f"--name {config.name}: {folder} holds a run; add --resume to continue it, or take another name"
            )
        return folder
    number, preset = 1, Path(config.preset).name.removesuffix(".toml")
    while (config.runs / f"{preset}-{number}").exists():
        number += 1
    return config.runs / f"{preset}-{number}"
