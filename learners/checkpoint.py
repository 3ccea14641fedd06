"""Checkpoints: one folder in Hugging Face format, replaced only by a whole one, and found again after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learners.errors import writing

NAME = "checkpoint"
"""The folder's name within a run's folder."""
STATE_FILE = "state.json"
"""In a checkpoint: how far the run has come and the settings it was started with. A folder with it is whole."""


def replace_folder(partial: Path, folder: Path) -> None:
    """Put `partial`, which is whole, in the place of `folder`; a kill at any moment loses nothing (see `present`)."""
    old = _old(folder)
    # A folder cannot be renamed onto another that holds files, so for a moment nothing has the folder's name.
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def present(folder: Path) -> Path:
    """Where the checkpoint of this place is now: `folder` itself, but for a kill while the next one replaced it.

    Such a kill leaves the next one whole beside its place, and the old one under another name.
    """
    if not folder.exists():
        for place in (_partial(folder), _old(folder)):
            if (place / STATE_FILE).is_file():
                return place
    return folder


def settle(folder: Path) -> None:
    """Finish what a kill between two renames has left half done. For the one process that writes there."""
    place = present(folder)
    if place != folder:
        place.rename(folder)


def find(run: Path) -> Path | None:
    """The folder of a run's checkpoint; None where the run has none."""
    place = present(run / NAME)
    return place if (place / STATE_FILE).is_file() else None


def read_state(run: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a run's checkpoint and its state.

    Raises:
        ValueError: the run has none, or its state cannot be read.
    """
    folder = find(run)
    if folder is None:
        raise ValueError(f"--resume: {run} has no checkpoint to continue from")
    try:
        return folder, state_of(folder)
    except ValueError as error:
        raise ValueError(f"--resume: {error}") from None


def state_of(folder: Path) -> dict[str, Any]:
    """The state in a checkpoint's folder.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        found = json.loads((folder / STATE_FILE).read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / STATE_FILE} cannot be read: {error}") from None
    return found


def write(folder: Path, state: dict[str, Any], fill: Callable[[Path], object]) -> None:
    """Write a checkpoint beside its place and put it there once it is whole.

    Args:
        folder: Its place.
        state: JSON, for `read_state`.
        fill: Function of a folder that writes everything else into it.

    Raises:
        DiskFault: it cannot be written; the checkpoint that was there is still there.
    """
    partial = _partial(folder)
    settle(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing(folder):
            fill(partial)
            # Last, and under its name only when it is whole: it says that everything else is there.
            draft = partial / f"{STATE_FILE}.partial"
            draft.write_text(json.dumps(state), "utf-8")
            draft.rename(partial / STATE_FILE)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    with writing(folder):
        replace_folder(partial, folder)


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")
