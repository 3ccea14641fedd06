"""What belongs to every run: signals, and the record of steps."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from learners.config import load_config
from learners.errors import ActorFault, Fault
from learners.report import Reporter
from learners.run import Run, main, uninterrupted


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


class Failing:
    """A cluster that plays no episode; it saves, unless its trainer is what has failed."""

    def __init__(self, fault: Fault, saves: bool) -> None:
        self.fault, self.saves, self.saved = fault, saves, 0

    def collect(self, *_: object) -> None:
        raise self.fault

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        if not self.saves:
            raise ActorFault("trainer 0 died: its process 7 was killed")
        self.saved += 1


@pytest.mark.parametrize(
    ("saves", "before", "ends"),
    [
        (True, None, "the checkpoint after step 4 stands: go on with --resume --name mine"),
        (False, 2, "the checkpoint after step 2 stands: go on with --resume --name mine"),
        (False, None, "nothing was saved yet: begin again"),
    ],
)
def test_a_fault_says_how_the_run_goes_on(tmp_path: Path, saves: bool, before: int | None, ends: str) -> None:
    """What the trainer holds is saved first, if it lives; else the last checkpoint stands."""
    cluster = Failing(ActorFault("engine 1 died: its process 5 was killed"), saves)
    folder = tmp_path / "mine"
    run = Run(load_config(["--steps", "9"]), folder, cluster, Reporter(folder))  # type: ignore[arg-type]
    run.done, run.saved = 4, before
    with pytest.raises(Fault) as caught:
        run.train()
    assert str(caught.value) == f"engine 1 died: its process 5 was killed; {ends}"
    assert cluster.saved == saves


def test_the_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def failing(*_: object) -> None:
        try:
            raise MemoryError("inside")
        except MemoryError as error:
            raise ActorFault("engine 0 failed: MemoryError: inside") from error

    monkeypatch.setattr("learners.run.check", lambda *_: None)
    monkeypatch.setattr("learners.run.train", failing)
    assert main(["--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: engine 0 failed: MemoryError: inside\n"
    monkeypatch.setenv("RESEARCH_DEBUG", "1")
    assert main(["--runs", str(tmp_path)]) == 1
    assert 'raise MemoryError("inside")' in capsys.readouterr().err
