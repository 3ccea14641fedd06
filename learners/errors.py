"""What stops a run for a reason that lies outside this code. A person reads one line of it, and no traceback."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from learners.names import one_line


class Fault(Exception):
    """The environment, a plug-in or the machine failed; the message is one line and says what and why."""


class ActorFault(Fault):
    """An engine or a trainer died, or failed in a way that is nobody else's fault."""


class DiskFault(Fault):
    """A file or a folder cannot be written."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = 1 << 20
"""Bytes; a disk with less is full, whatever the error says."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn whatever goes wrong with the disk while `place` is written into `DiskFault`."""
    try:
        yield
    except Exception as error:
        # torch and safetensors report a full disk with errors of their own, which may not name it.
        full = (isinstance(error, OSError) and error.errno in _FULL) or _free(place) < _ROOM
        if not full and not isinstance(error, OSError):
            raise
        reason = f"the disk is full, {_free(place) >> 20} MB are free: make room" if full else one_line(error)
        raise DiskFault(f"{place} cannot be written: {reason}") from error


def _free(place: Path) -> int:
    """Bytes free on the disk of a place, which may not be there yet."""
    parent = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
    disk = shutil.disk_usage(parent)
    # What has no size is no disk, such as /proc: there is nothing to make room on.
    return disk.free if disk.total else _ROOM
