"""Checkpoints: one folder in Hugging Face format, replaced only by a whole one, and found again after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "checkpoint"
"""The folder's name within a run's folder."""
STATE_FILE = "state.json"
"""In a checkpoint: how far the run has come and the settings it was started with."""


def replace_folder(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`, so that a kill at any moment leaves one whole folder to resume from."""
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    # A folder cannot be renamed onto another that holds files, so for a moment only the old name exists; see `find`.
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find(run: Path) -> Path | None:
    """The folder of a run's checkpoint; None where the run has none.

    A kill while one checkpoint was replaced by the next leaves the older one under another name.
    """
    folder = run / NAME
    for place in (folder, _old(folder)):
        if (place / STATE_FILE).is_file():
            return place
    return None


def read_state(run: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a run's checkpoint and its state.

    Raises:
        ValueError: the run has none, or its state cannot be read.
    """
    folder = find(run)
    if folder is None:
        raise ValueError(f"--resume: {run} has no checkpoint to continue from")
    try:
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--resume: {folder / STATE_FILE} cannot be read: {error}") from None
    return folder, state


def write(folder: Path, state: dict[str, Any], fill: Callable[[Path], object]) -> None:
    """Write a checkpoint beside its place and put it there once it is whole.

    Args:
        folder: Its place.
        state: JSON, for `read_state`.
        fill: Function of a folder that writes everything else into it.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    fill(partial)
    # The state is written last: `find` takes a folder without it for incomplete.
    (partial / STATE_FILE).write_text(json.dumps(state), "utf-8")
    replace_folder(partial, folder)


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")
