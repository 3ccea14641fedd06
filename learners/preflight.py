"""What a run checks before any work starts: its plug-ins, its environment, and this machine.

torch and transformers are imported where they are asked something, so that a mistake elsewhere is reported at once.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from learners import plugins, policies, pretrained
from learners.config import Config
from learners.environment import EnvironmentConfig, opened, reset

_PROMPTS = 8
"""Prompts that are looked at, to see whether they fit."""
_SMALL = 10_000_000
"""A rough count of a tiny policy's weights, below which it fits everywhere but in `/dev/shm`."""


def check(config: Config) -> None:
    """Check everything that can be known before a run starts.

    Raises:
        ValueError: a setting cannot work on this machine or with the others, or a plug-in does not fit.
        EnvironmentFault: the environment or a wrapper cannot be made.
    """
    plugins.check_terms(config.algorithm, config.objective)
    check_machine(config, trainers=config.trainer.count)
    environment = config.environment()
    used = [environment.kwargs, environment.eval_kwargs, *(stage.kwargs for stage in environment.stages)]
    check_environment(environment, *used, environment.blind_kwargs or environment.eval_kwargs)


def check_environment(environment: EnvironmentConfig, *kwargs: Mapping[str, Any]) -> None:
    """Raises as `check` does: the environment cannot be made with each of these keyword arguments."""
    if not environment.id:
        raise ValueError("--env research: this preset names no environment of its own; give a gymnasium id")
    plugins.metrics(environment.metrics)
    # Each one is really made: only the environment itself knows which arguments work.
    for each in kwargs:
        with opened(environment, each):
            pass


def check_prompts(config: Config, policy: str, *kwargs: Mapping[str, Any]) -> None:
    """Raises ValueError where the first prompts fill an episode, so that every one would end before its first turn.

    Args:
        config: Of the run.
        policy: Folder or Hub id, for the tokenizer.
        kwargs: Keyword arguments of the environment, one or several times.
    """
    environment, most = config.environment(), config.engine.max_length
    renderer = plugins.renderer(config.renderer)(pretrained.tokenizer("--model", policy))
    for each in kwargs:
        with opened(environment, each) as env:
            lengths = sorted(len(renderer.begin(*reset(env, seed))) for seed in range(_PROMPTS))
        if lengths[len(lengths) // 2] >= most:
            raise ValueError(
                f"--engine.max-length {most}: the prompts of {environment.id} have {lengths[0]} to {lengths[-1]} "
                f"tokens, which leaves no room for an answer; give more than {lengths[-1]}"
            )


def check_machine(config: Config, trainers: int) -> None:
    """Raises as `check` does: engine, renderer, cluster or the number of trainers does not fit this machine."""
    plugins.engine(config.engine.kind)
    plugins.renderer(config.renderer)
    # `find_spec` does not import: vLLM alone would take many seconds.
    if config.engine.kind == "vllm" and find_spec("vllm") is None:
        raise ValueError(
            "--engine.kind vllm: vLLM is not installed; pip install 'research-gym[cpu]' (or [gpu]), "
            "or use --engine.kind transformers"
        )
    _check_gpus(config, trainers)
    _check_place(config, trainers)
    # Last, because it may have to ask the Hub.
    _check_policies(config, trainers)


def _check_place(config: Config, trainers: int) -> None:
    if config.cluster == "local":
        for section, count in (("engine", config.engine.count), ("trainer", trainers)):
            if count > 1:
                raise ValueError(
                    f"--cluster local holds one {section}, and --{section}.count is {count}; "
                    f"use --{section}.count 1 or --cluster ray"
                )
        return
    if find_spec("ray") is None:
        raise ValueError(
            "--cluster ray: Ray is not installed; pip install 'research-gym[learn]', or use --cluster local"
        )
    _check_cluster(os.environ.get("RAY_ADDRESS", ""))


def _check_policies(config: Config, trainers: int) -> None:
    policy, reference = policies.chosen(config)
    if reference not in (None, "tiny", policy) and trainers:
        own = "--resume: the reference policy" if reference != config.model else "--model"
        pretrained.settings(own, str(reference))
    if policy == "tiny":
        if config.tiny.hidden % (32 * config.tiny.heads):
            raise ValueError(
                f"--tiny.hidden {config.tiny.hidden}: give a multiple of 32 for each of the {config.tiny.heads} heads"
            )
        if config.renderer == "templated":
            raise ValueError("--renderer templated: the tiny policy has no chat template; use --renderer plain")
        _check_tiny(config, trainers)
        return
    option = "--resume:" if config.resume else "--model"
    own = pretrained.settings(option, policy)
    _check_length(config, option, policy, own)
    _check_model(config, f"{option} {policy}", own, trainers)
    if config.renderer != "plain":  # e.g. this tokenizer has no chat template
        plugins.renderer(config.renderer)(pretrained.tokenizer(option, policy))


def _check_tiny(config: Config, trainers: int) -> None:
    """Of what a small policy needs, only shared memory can be too small. Counting takes seconds of imports."""
    shape = config.tiny
    small = shape.layers * shape.hidden * (shape.hidden + shape.feed_forward) < _SMALL
    if small and not (trainers and Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free < 2**30):
        return
    from learners import room

    (room.check_shared if small else room.check)(config, room.skeleton(config), trainers)


def _check_model(config: Config, who: str, own: Any, trainers: int) -> None:
    from learners import packed_check, room

    try:
        model = packed_check.build(own)
        if trainers:  # an evaluation packs nothing
            packed_check.check(model, config.engine.max_length)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None
    room.check(config, model, trainers)


def _check_length(config: Config, option: str, policy: str, own: Any) -> None:
    """vLLM refuses to go beyond what a policy was made for, with a traceback of many lines."""
    longest, rope = getattr(own, "max_position_embeddings", None), getattr(own, "rope_parameters", None) or {}
    stretched = rope.get("rope_type", "default") != "default"
    if config.engine.kind == "vllm" and longest and not stretched and config.engine.max_length > longest:
        raise ValueError(
            f"--engine.max-length {config.engine.max_length}: {option} {policy} was made for at most {longest} tokens; "
            f"use --engine.max-length {longest}"
        )


def _check_gpus(config: Config, trainers: int) -> None:
    engine_gpus = config.engine.count * config.engine.tensor_parallel * (config.engine.device == "cuda")
    trainer_gpus = trainers * (config.trainer.device == "cuda")
    # In one process, engine and trainer share the first GPU.
    local = config.cluster == "local"
    gpus = max(engine_gpus, trainer_gpus) if local else engine_gpus + trainer_gpus
    if not gpus:
        return
    from learners import room

    if room.elsewhere(config):
        return
    import torch

    if torch.cuda.device_count() < gpus:
        raise ValueError(
            f"this configuration needs {gpus} GPUs ({engine_gpus} for engines), and this machine has "
            f"{torch.cuda.device_count()}; lower --engine.count and --trainer.count, use --preset tiny-cpu, "
            "or set RAY_ADDRESS to a cluster that has them"
        )


def _check_cluster(address: str) -> None:
    """Ray itself waits a minute for a cluster that is not there, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # "", "auto" and "local" name no machine
    try:
        with socket.create_connection((host, int(port)), timeout=5) as server:
            if os.environ.get("RAY_USE_TLS") != "1":
                # Ray speaks HTTP/2, whose first answer is a frame of settings, type 4 (RFC 9113, section 3.4).
                server.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5))
                if server.recv(9)[3:4] != b"\4":
                    raise OSError("something else does")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}); start it, or unset it"
        ) from None


def placement(config: Config) -> str:
    """Which actors run where, for a person."""
    import torch

    engine, trainer = config.engine, config.trainer
    each = f"{engine.tensor_parallel} GPU" if engine.device == "cuda" else f"{engine.threads} threads"
    own = "1 GPU" if trainer.device == "cuda" else f"{trainer.threads} threads"
    where = "in this process: " if config.cluster == "local" else ""
    return (
        f"{where}engines: {engine.count} x {engine.kind} on {engine.device}, {each} each; "
        f"trainers: {trainer.count} on {trainer.device}, {own} each; this machine: {os.cpu_count()} cores, "
        f"{torch.cuda.device_count()} GPUs"
    )
