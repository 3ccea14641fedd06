"""What belongs to every run: signals, and the record of steps."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from learners.report import Reporter
from learners.run import uninterrupted


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


def test_a_new_run_forgets_what_stood_in_its_folder(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    report.metrics(0, {"em/1": 0.5})
    report.close()
    assert len(report.history()) == 1
    report.restart()
    assert report.history() == []


def test_reading_the_history_changes_nothing_and_forgetting_does(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    for step in range(4):
        report.metrics(step, {"em/1": step / 4})
    report.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "em')  # a kill in the middle of a write
    before = (tmp_path / "metrics.jsonl").read_text()
    assert [row["step"] for row in report.history()] == [0, 1, 2, 3]
    assert (tmp_path / "metrics.jsonl").read_text() == before
    report.forget_from(2)
    assert [row["step"] for row in report.history()] == [0, 1]
