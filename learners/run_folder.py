"""A run's folder: chosen, made and locked at once, so that no two processes ever write into one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from learners import checkpoint
from learners.config import Config
from learners.errors import DiskFault, writing

LOCK = ".lock"
"""File in a run's folder. The system frees the lock when the process ends, however it ends; the file stays."""
_KEPT = ("metrics.jsonl", "summary.json")
"""Beside a checkpoint: what is worth keeping of a run that has ended."""


@contextmanager
def claim(config: Config) -> Iterator[Path]:
    """The run's folder, which is this process's alone: `runs/<name>`, or the next free `runs/<preset>-<number>`.

    A new run's folder is removed again where nothing that is worth keeping has come into it.

    Raises:
        ValueError: the name is none, or is taken; there is nothing to resume; another process holds the run; or the
            folder cannot be written to.
    """
    check(config)
    with _told(config):
        folder = _open(config)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(f"{folder}: another process holds this run; wait for it, or stop it first") from None
    ours = False
    try:
        if config.resume:
            checkpoint.settle(folder / checkpoint.NAME)
        else:
            # Asked again, because another run may have come and gone before the lock was ours.
            _check_new(config, folder)
        ours = True
        yield folder
    finally:
        if ours and checkpoint.find(folder) is None and not any((folder / name).exists() for name in _KEPT):
            shutil.rmtree(folder, ignore_errors=True)
        # Its last act, because from now on the folder may be another's.
        lock.release()


def check(config: Config) -> None:
    """What is known of the folder without making it.

    Raises:
        ValueError: as `claim`, but for a run that another process holds.
    """
    name = config.name
    if name is not None and (name in ("", ".", "..") or name != Path(name).name or "\0" in name):
        raise ValueError(f"--name {name!r}: give a name without slashes; --runs FOLDER says where runs are kept")
    if config.resume and not name:
        raise ValueError("--resume: say which run with --name NAME")
    with _told(config):
        if config.resume:
            checkpoint.read_state(config.runs / str(name))
        elif name:
            _check_new(config, config.runs / name)
        # Only a write tells whether one can write: the system calls /proc writable, and a full disk too.
        place = next(each for each in (config.runs, *config.runs.absolute().parents) if each.exists())
        with writing(place), tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))


@contextmanager
def _told(config: Config) -> Iterator[None]:
    """Name the option that is to blame for what the system refuses."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"--runs {config.runs}: {error.strerror or error}; give another folder") from error
    except DiskFault as error:
        raise ValueError(f"--runs {config.runs}: {error}; give another folder") from error


def is_finished(folder: Path, config: Config) -> str:
    """What to say of a run that has nothing left to do; empty for every other."""
    if not config.resume or not (folder / "summary.json").exists():
        return ""
    _, state = checkpoint.read_state(folder)
    done = int(state["step"])
    # Every evaluation counts dropped episodes; one that is missing is still to be made.
    wanted = ["after", "after_no_search"] if config.environment().blind_kwargs else ["after"]
    evaluated = config.eval_questions == 0 or all(f"dropped_{key}" in state["results"] for key in wanted)
    if done < config.steps or not evaluated:
        return ""
    return f"finished: {done} steps are made; add --steps {(done // 50 + 1) * 50} to train on"


def to_go_on(config: Config, folder: Path) -> str:
    """The options that resume this run."""
    runs = "" if config.runs == Path("runs") else f"--runs {config.runs} "
    return f"--resume {runs}--name {folder.name}"


def _check_new(config: Config, folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"--name {config.name}: {folder} is a file; choose another name")
    if checkpoint.find(folder):
        raise ValueError(
            f"--name {config.name}: {folder} holds a run; add --resume to continue it, or choose another name"
        )
    if any(path.name != LOCK for path in folder.iterdir()):
        # It may be that of a run that was killed before its first checkpoint, or somebody's notes: it is not ours.
        raise ValueError(
            f"--name {config.name}: {folder} is not empty, and has no checkpoint to go on from; "
            "remove it, or choose another name"
        )


def _open(config: Config) -> Path:
    """The folder, made where it is not there. To make one is atomic: of two processes, one gets the number."""
    if config.name:
        folder = config.runs / config.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    config.runs.mkdir(parents=True, exist_ok=True)
    preset = Path(config.preset).name.removesuffix(".toml")
    for number in count(1):
        folder = config.runs / f"{preset}-{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")
