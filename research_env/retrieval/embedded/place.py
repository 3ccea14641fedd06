"""Where an index is built: in a folder beside its place, `FOLDER.building`, which one process holds at a time.

Nothing is deleted there that this program has not made: its own folder has a marker inside, and any other is refused.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from research_env.errors import ConfigurationError, ResearchError, RetrievalError
from research_env.files import home

TERMS = "index"
"""In the building folder: the finished BM25 index that waits for its vectors."""
VECTORS = "vectors"
"""In the building folder: passages that have been encoded so far."""
_MARKER = "made-by-research-gym"
_LOCK = "made-by-research-gym.lock"
_TRIES = 1_000
"""Times that a folder may vanish while it is claimed."""
_RESUMABLE = (f"{TERMS}/about.json", f"{VECTORS}/progress.json")


@contextmanager
def building(folder: Path, what: str) -> Iterator[Path]:
    """Hold the folder in which the index for `folder` is built, and yield it.

    It is removed in the end, unless there is something in it that the next build can go on with.

    Raises:
        ConfigurationError: a folder of that name is there, and it is not of this program.
        RetrievalError: the disk is full or the folder cannot be written.
    """
    work = folder.with_name(f"{folder.name}.building")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _hold(work)
        try:
            yield work
        finally:
            if not any((work / part).exists() for part in _RESUMABLE):
                _remove(work)
            lock.release()
    except ResearchError:  # raised by the passages or the encoder; its own message is better
        raise
    except (OSError, ValueError) as error:
        raise RetrievalError(
            f"{what} could not be built in {folder.parent} ({error}){_advice(error, folder)}"
        ) from error


def _advice(error: Exception, folder: Path) -> str:
    # By its text: tantivy raises ValueError, and says of a writer that found no room only that an io::Error is likely.
    signs = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "io::Error")
    if not any(sign in str(error) for sign in signs):
        return ""
    ours = folder.resolve().is_relative_to(home().resolve())
    return "; free disk space there" + (", or point RESEARCH_HOME at a folder with room" if ours else "")


def _hold(work: Path) -> FileLock:
    """Make the folder, unless it is there, and lock it."""
    lock = FileLock(work / _LOCK)
    for _ in range(_TRIES):
        # Whoever was building here may finish and remove the folder at any moment. It may even be made again while this
        # process waits: then the lock is that of the old folder, and the token tells.
        with suppress(FileNotFoundError):
            token = _claim(work)
            lock.acquire()
            if (work / _MARKER).read_text() == token:
                return lock
        lock.release()
    # Nobody comes and goes that often: the place itself takes no folders, as /proc does not.
    raise OSError(errno.ENOENT, "no folder can be made there", str(work))


def _claim(work: Path) -> str:
    """The token in the folder's marker; both are made where they are missing."""
    if work.is_dir() and (work / _MARKER).is_file():
        return (work / _MARKER).read_text()
    others = work.exists() and (not work.is_dir() or any(path.name != _LOCK for path in work.iterdir()))
    # The marker is made before anything else, so it is asked for last: another process may have begun just now.
    if others and not (work / _MARKER).is_file():
        if not work.exists():
            raise FileNotFoundError(work)  # that process has finished meanwhile
        raise ConfigurationError(
            f"{work} is in the way: an index is built there, and it holds something else; move it, or give another "
            "folder"
        )
    work.mkdir(exist_ok=True)
    with suppress(FileExistsError), (work / _MARKER).open("x") as file:
        file.write(uuid4().hex)
    return (work / _MARKER).read_text()


def _remove(work: Path) -> None:
    # Renamed first: a process that comes meanwhile sees either the whole folder or none.
    gone = Path(tempfile.mkdtemp(prefix=f".{work.name}-", dir=work.parent))
    os.rename(work, gone)
    shutil.rmtree(gone, ignore_errors=True)
