"""Whether a run fits into this machine: what `memory.py` estimates, against what is here."""

from __future__ import annotations

import os
import shutil
from math import ceil
from pathlib import Path
from typing import Any

from learners import memory, packed_check, policies, pretrained
from learners.config import Config
from learners.memory import GIB, SPARE

SHARED = Path("/dev/shm")
"""Where Linux keeps POSIX shared memory (shm_overview(7)); a container has 64 MB of it unless told otherwise."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def skeleton(config: Config) -> Any:
    """The run's policy without its weights; see `packed_check.build`.

    Raises:
        ValueError: there is no such policy, or it is not for this trainer.
    """
    policy, _ = policies.chosen(config)
    if policy == "tiny":
        from learners.tiny.model import shape

        return packed_check.build(shape(config.tiny, config.tiny.vocabulary, config.engine.max_length))
    return packed_check.build(pretrained.settings("--model", policy))


def elsewhere(config: Config) -> bool:
    """Whether the actors may be on other machines, of which nothing is known here."""
    return config.cluster == "ray" and os.environ.get("RAY_ADDRESS") not in (None, "", "local")


def check(config: Config, model: Any, trainers: int) -> None:
    """Compare a run with this machine; with `RAY_ADDRESS`, its actors may be on others, of which nothing is known here.

    Args:
        config: Of the run.
        model: Made by `skeleton`.
        trainers: 0 for an evaluation.

    Raises:
        ValueError: it does not fit; the message has both numbers and what makes it smaller.
    """
    if elsewhere(config):
        return
    check_shared(config, model, trainers)
    room = _gpu()
    engine = memory.total(memory.engine(config, model))
    if config.engine.device == "cuda" and room and engine > room * config.engine.gpu_memory_share:
        raise ValueError(
            f"an engine needs about {memory.shown(memory.engine(config, model))} on each GPU, and may use "
            f"{room * config.engine.gpu_memory_share / GIB:.1f} GiB; raise --engine.tensor-parallel, or lower "
            f"--engine.max-length or --engine.max-batch-tokens"
        )
    if not trainers:
        return
    parts = memory.trainer(config, model, policies.chosen(config).reference is not None)
    place = "a GPU"
    if config.trainer.device == "cpu":
        place, engines = "this machine", config.engine.count * (engine + config.engine.cache_gib * GIB)
        room = max(1.0, _ram() - engines * (config.engine.device == "cpu")) / trainers if _ram() else 0.0
    elif config.cluster == "local" and config.engine.device == "cuda":
        room *= 1 - config.engine.gpu_memory_share  # they share one
    if room and memory.total(parts) > room * (1 - SPARE):
        raise ValueError(
            f"a trainer needs about {memory.shown(parts)}, and {place} has {room / GIB:.1f} GiB for it, of which "
            f"{SPARE:.0%} should stay free; {_smaller(config)}"
        )


def _smaller(config: Config) -> str:
    settings, ways = config.trainer, []
    if not settings.recompute:
        ways.append("set --trainer.recompute")
    longest = config.engine.max_length
    if settings.max_batch_tokens > longest:
        ways.append(f"lower --trainer.max-batch-tokens (now {settings.max_batch_tokens}) to {longest}")
    if settings.dtype == "float32":
        ways.append("set --trainer.dtype bfloat16")
    if settings.device == "cuda":
        ways.append(f"raise --trainer.count (now {settings.count})")
    return ", ".join([*ways, f"lower --engine.max-length (now {longest})"])


def check_shared(config: Config, model: Any, trainers: int) -> None:
    """Raises as `check` does: `/dev/shm` is too small. Whoever writes beyond its end dies of a bus error."""
    if not trainers or not SHARED.is_dir() or elsewhere(config):
        return
    needed, free = memory.weights_in_shared_memory(config, model), shutil.disk_usage(SHARED).free
    if needed > free:
        raise ValueError(
            f"{SHARED} has {free / GIB:.2f} GiB free, and new weights need {needed / GIB:.2f} GiB of it on their way "
            f"to the engines; enlarge it (docker run --shm-size={ceil(needed / GIB) + 1}g, or "
            f"mount -o remount,size={ceil(needed / GIB) + 1}G {SHARED}), or lower --engine.count"
        )


def table(config: Config) -> str:
    """The estimate, for a person."""
    try:
        model = skeleton(config)
    except ValueError as error:
        return f"memory: not estimated ({error})"
    reference = policies.chosen(config).reference is not None
    shared = memory.weights_in_shared_memory(config, model)
    return "\n".join([
        f"memory by estimate, {sum(p.numel() for p in model.parameters()) / 1e9:.3f}B parameters:",
        f"  each of {config.trainer.count} trainers: {memory.shown(memory.trainer(config, model, reference))}",
        f"  each GPU of an engine, at least: {memory.shown(memory.engine(config, model))}",
        f"  {SHARED}: {shared / GIB:.2f} GiB",
    ])  # fmt: skip


def _gpu() -> float:
    """Bytes of the first GPU; 0 where there is none."""
    import torch

    return float(torch.cuda.mem_get_info(0)[1]) if torch.cuda.is_available() else 0.0


def _ram() -> float:
    """Bytes that this machine, or this container, has; 0 where it does not say."""
    try:
        size = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 0.0
    limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else "max"
    return size if limit == "max" else min(size, float(limit))
