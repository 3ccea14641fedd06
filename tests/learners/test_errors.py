"""Faults of the disk, as one line."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from learners import errors
from learners.errors import DiskFault, writing


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(number: int, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFault, match=r"one cannot be written: the disk is full") as caught,
        writing(tmp_path / "one"),
    ):
        raise OSError(number, "whatever the system calls it")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_library_that_does_not_name_the_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.save` raises a RuntimeError that speaks of an archive."""
    monkeypatch.setattr(errors.shutil, "disk_usage", lambda _: SimpleNamespace(free=0, total=1 << 30))
    with (
        pytest.raises(DiskFault, match="the disk is full, 0 MB are free: make room"),
        writing(tmp_path / "not" / "there"),
    ):
        raise RuntimeError("[enforce fail at inline_container.cc]\nunexpected pos")


def test_any_other_error_of_the_system_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskFault, match=r"cannot be written: OSError: \[Errno 30\] Read-only"), writing(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")


def test_a_bug_stays_a_bug(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("weights")


def test_a_fault_crosses_processes() -> None:
    assert str(pickle.loads(pickle.dumps(DiskFault("full")))) == "full"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_what_is_no_disk_is_not_called_full() -> None:
    place = Path("/proc/x")
    with pytest.raises(DiskFault, match=r"^/proc/x cannot be written: FileNotFoundError") as caught, writing(place):
        place.write_text("")
    assert "full" not in str(caught.value)
