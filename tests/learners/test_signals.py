"""Ctrl-C and SIGTERM, wherever they come, and where Ctrl-C is meant for another program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from learners.signals import uninterrupted

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_until_the_step_is_whole(number: int) -> None:
    done = []
    usual = signal.getsignal(signal.SIGINT)

    @uninterrupted()
    def step() -> None:
        os.kill(os.getpid(), number)
        done.append("counted")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["counted"]
    assert signal.getsignal(signal.SIGINT) is usual
    with uninterrupted():
        done.append("next")
    assert done[-1] == "next"


def test_what_is_ignored_stays_ignored() -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, usual)


def test_a_process_that_a_test_starts_hears_ctrl_c() -> None:
    waiting = "import time; print('here', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    child.send_signal(signal.SIGINT)
    try:
        assert child.wait(timeout=30) == -signal.SIGINT
    finally:
        child.kill()
        child.communicate()


def test_the_tests_run_in_the_background_of_a_script() -> None:
    """There SIGINT is ignored, which every process would inherit."""
    test = "tests/learners/test_signals.py::test_a_process_that_a_test_starts_hears_ctrl_c"
    command = f"trap '' INT; exec {sys.executable} -m pytest -q -p no:cacheprovider {test}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


IMPORTING = """
import os, runpy, signal, sys
from importlib.abc import MetaPathFinder

class Pressed(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Pressed())
runpy.run_module("learners.grpo", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["learners.run", "numpy", "learners.config"])
def test_ctrl_c_in_the_middle_of_the_imports_shows_no_traceback(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, module], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
