"""Weights in shared memory: what is read is what was written, and only its owner ends a segment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from learners.weights.host_memory import attach, describe, fill, views

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM, which uses this, runs on Linux alone")


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "embed": rng.normal(size=(7, 5)).astype(np.float32),
        "bias": np.array([1.5], np.float32),
        "count": np.arange(3, dtype=np.int64),
    }


@pytest.fixture
def segment(weights: dict[str, np.ndarray]) -> Iterator[SharedMemory]:
    segment = SharedMemory(create=True, size=describe(weights)[1])
    yield segment
    segment.close()
    segment.unlink()


def test_what_is_read_is_what_was_written(segment: SharedMemory, weights: dict[str, np.ndarray]) -> None:
    """Also after the owner has written anew; and nobody else can write."""
    layout, _ = describe(weights)
    assert all(offset % 64 == 0 for *_, offset in layout)
    reader = attach(segment.name)
    for factor in (1, 2):
        fill(segment, {name: array * factor for name, array in weights.items()}, layout)
        found = views(reader, layout)
        for name, view in found:
            np.testing.assert_array_equal(view, weights[name] * factor)
            assert view.dtype == weights[name].dtype
            assert not view.flags.writeable
    del found, view
    reader.close()


READER = """
import sys
from learners.weights.host_memory import attach
segment = attach(sys.argv[1])
assert segment[:5] == b"hello"
if "closed" in sys.argv:
    segment.close()
"""

OWNER = f"""
import multiprocessing, os, subprocess, sys
from multiprocessing.shared_memory import SharedMemory
from learners.weights.host_memory import attach

def read(name):
    assert attach(name)[:5] == b"hello"

if __name__ == "__main__":
    segment = SharedMemory(create=True, size=4096)
    segment.buf[:5] = b"hello"
    # Forked and spawned children share the owner's resource tracker; a process of its own has one of its own.
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=read, args=(segment.name,))
        child.start()
        child.join()
        assert child.exitcode == 0
    for how in ("closed", "open"):
        subprocess.run([sys.executable, "-c", {READER!r}, segment.name, how], check=True)
    read(segment.name)
    # Every reader is gone, and the segment is as it was.
    assert os.path.exists("/dev/shm/" + segment.name)
    assert attach(segment.name)[:5] == b"hello"
    if "killed" in sys.argv:
        print(segment.name, flush=True)
        os.kill(os.getpid(), 9)
    segment.close()
    segment.unlink()
    assert not os.path.exists("/dev/shm/" + segment.name)
    print(segment.name)
"""


def test_readers_neither_end_a_segment_nor_claim_it(tmp_path: Path) -> None:
    """The owner's unlink is the only one: without a warning or a traceback of any process' resource tracker."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": "."}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (Path("/dev/shm") / done.stdout.strip()).exists()


def test_the_segment_of_a_killed_owner_is_cleaned_up(tmp_path: Path) -> None:
    """The owner's own claim still stands after others have read: its tracker removes the segment."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    done = subprocess.run(
        [sys.executable, str(script), "killed"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == -9
    name = done.stdout.strip()
    assert name
    assert "leaked shared_memory" in done.stderr
    assert not (Path("/dev/shm") / name).exists()
