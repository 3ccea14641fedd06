"""What belongs to every run: the record of steps, and its last line."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from learners.config import load_config
from learners.curve import draw
from learners.errors import ActorFault, DiskFault, Fault
from learners.report import Reporter
from learners.run import Run, main


def test_reading_the_history_changes_nothing_and_forgetting_does(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    for step in range(1, 5):
        report.metrics(step, {"em/1": step / 4})
    report.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "em')  # a kill in the middle of a write
    before = (tmp_path / "metrics.jsonl").read_text()
    assert [row["step"] for row in report.history()] == [1, 2, 3, 4]
    assert (tmp_path / "metrics.jsonl").read_text() == before
    report.forget_after(2)
    assert [row["step"] for row in report.history()] == [1, 2]


def test_a_run_of_an_older_version_counted_from_0(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "reward": {step}.5}}\n' for step in range(4)))
    report = Reporter(tmp_path)
    report.forget_after(3)
    assert [(row["step"], row["reward"]) for row in report.history()] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    report.forget_after(3)  # and it is not counted up again
    assert [row["step"] for row in report.history()] == [1, 2, 3]


def test_a_full_disk_is_named_by_the_record_of_steps(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFault, match=rf"{tmp_path}.*the disk is full"):
        report.metrics(1, {"reward": 0.5})


def test_the_curve_marks_what_is_sampled_and_what_is_greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, *_, **__: drawn.append(self))
    rows = [{"step": step, "reward/all": 0.1 * step, "won/all": 0.5, "policy/kl": 0.1} for step in (1, 2, 3)]
    draw(tmp_path / "curve.png", rows, {0: {"reward": {"all": 0.0}}, 3: {"reward": {"all": 0.4}}})
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == ["reward", "won"]
    training, evaluation = figure.axes[0].lines
    assert (list(training.get_xdata()), training.get_marker()) == ([1, 2, 3], "None")
    assert (list(evaluation.get_xdata()), list(evaluation.get_ydata())) == ([0, 3], [0.0, 0.4])
    assert (evaluation.get_marker(), evaluation.get_linestyle()) == ("o", "None")
    assert [text.get_text() for text in figure.legends[0].texts] == ["training, sampled", "evaluation, greedy"]
    draw(tmp_path / "curve.png", [], {})  # nothing to draw


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


def test_a_run_that_goes_on_forgets_its_last_evaluations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric may have such a word in its name."""
    results = {"time_after_before": 1, "em_before": 2, "em_after": 3, "em_after_no_search": 4}
    state = {"step": 1, "results": results, "seconds": {}}
    monkeypatch.setattr("learners.checkpoint.read_state", lambda folder: (folder, state))
    run = Run(load_config(["--steps", "2"]), tmp_path, MagicMock(), Reporter(tmp_path))
    run.resume()
    assert run.results == {"time_after_before": 1, "em_before": 2}
