"""The policies that a run starts from: what its engines and trainers load, and the reference of its KL term.

A new run has one for both. A resumed run goes on from its checkpoint, tokenizer and all, and keeps the reference that
it began with, whatever arguments its environment gets now: `reference/` in the run's folder where that was a tiny
policy, which is made on the spot, and else the folder or the Hub id `model`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from learners import checkpoint, plugins
from learners.config import Config, resolve
from learners.errors import writing

NAME = "reference"
"""In a run's folder: the tiny policy that it began with."""


class Policies(NamedTuple):
    """Each is a folder, a Hub id, or `"tiny"`: still to be made."""

    policy: str
    """What engines and trainers start from."""
    reference: str | None
    """None where neither the algorithm nor one of its terms looks at it."""


def chosen(config: Config) -> Policies:
    """The policies of a run before anything is made."""
    algorithm: Any = plugins.algorithm(config.algorithm)(config.objective)
    needs = algorithm.needs.union(*(term.needs for term in algorithm.terms()))
    reference = config.model if "reference" in needs else None
    run = config.runs / str(config.name)
    place = checkpoint.find(run) if config.resume else None
    if place is None:
        return Policies(config.model, reference)
    # Absolute paths, because actors run in folders of their own.
    if reference == "tiny" and (run / NAME).exists():
        reference = str((run / NAME).resolve())
    return Policies(str(place.resolve()), reference)


def made(config: Config, folder: Path, say: Callable[[str], None]) -> Policies:
    """The policies of a run, a tiny one made and kept in the run's folder.

    Args:
        config: Of the run.
        folder: Of the run.
        say: Prints a line.

    Raises:
        ValueError: a run of an older version, which kept no reference, and whose reference cannot be made again.
        EnvironmentFault: the environment's action space gives no valid example actions.
        DiskFault: the run's folder cannot be written.
    """
    policy, reference = chosen(config)
    if "tiny" not in (policy, reference):
        return Policies(policy, reference)
    from learners.tiny.warmup import tiny_policy  # it imports torch

    own = (folder / NAME).resolve()
    if policy == "tiny":
        _keep(tiny_policy(config, say), own)
        return Policies(str(own), reference and str(own))
    # The settings in the checkpoint, without what the command line adds now, are the recipe of its first policy.
    _, state = checkpoint.read_state(folder)
    again = tiny_policy(resolve({}, saved=state.get("config", {})), say)
    if _vocabulary(again) != _vocabulary(Path(policy)):
        raise ValueError(
            f"--resume: {folder} has no {NAME}/, as an older version wrote it, and what its settings make now has "
            f"another tokenizer; go on without a reference (--objective.kl 0), or begin a new run from {policy}"
        )
    _keep(again, own)
    return Policies(policy, str(own))


def _keep(made: Path, own: Path) -> None:
    """Copy a policy, because the cache where it was made may be cleared, or stay behind on another machine."""
    partial = own.with_name(f"{own.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with writing(own):
        shutil.copytree(made, partial)
        checkpoint.replace_folder(partial, own)


def _vocabulary(folder: Path) -> Any:
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
