"""Whole runs in one process, on an environment that knows no question answering: its folder, its reports, its end."""

from __future__ import annotations

import json
import os
import signal
import string
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from learners import checkpoint, run
from learners.algorithms.grpo import GRPO
from learners.cluster.local import LocalCluster
from learners.engines.transformers import TransformersEngine

ENV = "Stones-v0"


class Stones(gym.Env[str, str]):
    """One turn; the shorter, the better. There are 20 questions, or as many as seeds."""

    # Else every turn of an untrained policy would run into its limit.
    metadata: dict[str, Any] = {"render_modes": [], "stop": list("abcdefghijklm ")}

    def __init__(self, questions: int | None = 20, broken: str = "", render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = gym.spaces.Text(9_999, min_length=0, charset=string.printable)
        self.questions, self.broken, self.render_mode = questions, broken, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        assert seed is not None
        if self.broken == "reset":
            raise RuntimeError("the stones are gone")
        self.question = seed % self.questions if self.questions else seed
        return f"Who founded guild {self.question}?", {"question_id": f"stone {self.question}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        info = {"question_id": f"stone {self.question}", "stones": len(action), "clear": "a" in action}
        return "", 1 / (1 + len(action)), True, False, info


@pytest.fixture(autouse=True)
def stones() -> Iterator[None]:
    """The environment; and environment variables and signal handlers as they were, which a run sets."""
    before, handlers = dict(os.environ), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gym.register(ENV, entry_point=Stones)
    yield
    del gym.registry[ENV]
    os.environ.clear()
    os.environ.update(before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def train(tiny_folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs `python -m learners.grpo` with a policy that is there already; the run is `mine`."""

    def train(*more: str, resume: bool = False) -> int:
        new = [
            "--env", ENV, "--cluster", "local", "--engine.kind", "transformers", "--engine.max-length", "64",
            "--engine.threads", "1", "--trainer.threads", "1", "--max-turn-tokens", "6", "--max-retries", "0",
            "--model", str(tiny_folder), "--prompts", "3", "--group-size", "2", "--minibatches", "1",
            "--eval-questions", "4",
        ]  # fmt: skip
        return run.main(["--runs", str(tmp_path), "--name", "mine", *(["--resume"] if resume else new), *more])

    return train


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_and_more_of_it(train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    assert train("--steps", "8") == 0
    out = capsys.readouterr().out
    # Reports speak of what the environment has.
    for text in (out, (folder / "transcripts_after.md").read_text()):
        assert [word for word in ("EM", "hop", "search", "format", "golden") if word in text] == []
    assert "training: steps 1 to 8" in out
    (first,) = [line for line in out.splitlines() if line.startswith("step 1/8")]
    assert [word for word in ("reward ", "length ", "stones ", "clear ", "KL ") if word not in first] == []
    assert ", stones " in (folder / "transcripts_after.md").read_text()
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == list(range(1, 9))
    assert "stones_after" in summary(folder)
    assert "em_after" not in summary(folder)
    # 8 x 3 training questions went round all 20, and so met the 4 of the evaluation.
    assert summary(folder)["reset_seeds"] == {
        "warm_start": [], "training": [0, 23], "before": [2**31, 2**31 + 3], "after": [2**31, 2**31 + 3],
    }  # fmt: skip
    assert summary(folder)["evaluation_questions_trained_on"] == 4
    assert "4 of the 4 evaluation questions were trained on" in out

    assert train(resume=True) == 0
    assert capsys.readouterr().out == f"finished: 8 steps are made; add --steps 50 to train on\n{folder}\n"

    assert train("--steps", "9", resume=True) == 0
    out = capsys.readouterr().out
    assert "resuming after step 8" in out
    assert "training: steps 9 to 9" in out
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == list(range(1, 10))
    assert summary(folder)["reset_seeds"]["training"] == [0, 26]
    # An evaluation that is made again takes the place of the one before.
    phases = [row["phase"] for row in rows(folder / "episodes.jsonl")]
    assert phases == ["before"] * 4 + ["after"] * 4
    assert {version for row in rows(folder / "episodes.jsonl")[4:] for version in row["versions"]} == {9}
    assert [path.name for path in folder.iterdir() if "partial" in path.name or "old" in path.name] == []


def test_questions_that_come_from_seeds_are_never_trained_on(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("--steps", "2", "--env-kwargs", '{"questions": null}') == 0
    assert summary(tmp_path / "mine")["evaluation_questions_trained_on"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_the_first_checkpoint_leaves_nothing(
    number: int, train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(LocalCluster, "collect", lambda *_: os.kill(os.getpid(), number))
    assert train() == 130
    out, err = capsys.readouterr()
    assert err == ""
    ends = f"stopped before the first checkpoint: nothing is kept, {tmp_path / 'mine'} is removed"
    assert out.splitlines()[-1] == ends
    assert list(tmp_path.iterdir()) == []


def test_a_stop_in_the_middle_is_kept_and_goes_on(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect, calls = LocalCluster.collect, []

    def stopping(self: LocalCluster, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:  # an evaluation and two steps come first
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LocalCluster, "collect", stopping)
        assert train("--steps", "4") == 130
    assert f"(go on with --resume --runs {tmp_path} --name mine)" in capsys.readouterr().out
    assert train(resume=True) == 0
    assert "resuming after step 2" in capsys.readouterr().out
    assert [row["step"] for row in rows(tmp_path / "mine" / "metrics.jsonl")] == [1, 2, 3, 4]
    assert summary(tmp_path / "mine")["reset_seeds"]["training"] == [0, 11]


def test_a_disk_that_fills_up_is_one_line(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of the second step does not fit, and neither does a checkpoint of it."""
    collect, calls = LocalCluster.collect, []

    def filling(self: LocalCluster, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            (tmp_path / "mine" / "metrics.jsonl").unlink()
            (tmp_path / "mine" / "metrics.jsonl").symlink_to("/dev/full")
        return collect(self, *args)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalCluster, "collect", filling)
    with monkeypatch.context() as patch:
        save = LocalCluster.save
        patch.setattr(
            LocalCluster, "save",
            lambda self, *args: (patch.setattr("torch.save", full) if len(calls) > 2 else None, save(self, *args)),
        )  # fmt: skip
        assert train("--steps", "4", "--checkpoint-every", "1") == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert f"error: {tmp_path / 'mine'} cannot be written: the disk is full" in err
    assert f"the checkpoint after step 1 stands: go on with --resume --runs {tmp_path} --name mine" in err
    assert "not saved" in out
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name.startswith("checkpoint")] == ["checkpoint"]


def test_an_environment_that_fails_in_the_warm_start_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--env", ENV, "--env-kwargs", '{"broken": "reset"}', "--cluster", "local"]
    assert run.main([*arguments, "--engine.kind", "transformers", "--runs", str(tmp_path), "--name", "mine"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: RuntimeError: the stones are gone (")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def broken_metrics(trajectories: Any) -> Any:
    raise KeyError("stones")


class BrokenAlgorithm(GRPO):
    def credit(self, groups: Any, scores: Any) -> Any:
        raise IndexError("no such group")


class BrokenEngine(TransformersEngine):
    def __init__(self, config: Any, model: str, seed: int = 0) -> None:
        raise MemoryError("no room for an engine")


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        (
            "--research.metrics",
            "broken_metrics",
            "metrics whole_run_plugins:broken_metrics failed: KeyError: 'stones' (",
        ),
        ("--algorithm", "BrokenAlgorithm", "BrokenAlgorithm.credit failed: IndexError: no such group ("),
        ("--engine.kind", "BrokenEngine", "MemoryError: no room for an engine"),
    ],
)
def test_a_plug_in_that_raises_is_one_line(
    option: str, name: str, said: str, train: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "whole_run_plugins", sys.modules[__name__])
    assert train(option, f"whole_run_plugins:{name}") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_run_in_the_background_of_a_script_stops_at_sigterm_alone(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect, calls = LocalCluster.collect, []

    def pressed(self: LocalCluster, *args: Any) -> Any:
        calls.append(args)
        os.kill(os.getpid(), signal.SIGINT if len(calls) < 4 else signal.SIGTERM)
        return collect(self, *args)

    monkeypatch.setattr(LocalCluster, "collect", pressed)
    assert train("--steps", "4") == 130
    assert checkpoint.read_state(tmp_path / "mine")[1]["step"] == 2
