"""A policy that is not there is named as what was most likely meant, and nobody waits for a Hub that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from learners import pretrained
from learners.config import load_config
from learners.preflight import check_machine


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A Hub that cannot be reached; returns what it was asked for."""
    asked: list[str] = []

    def unreachable(self: Any, model: str, **_: Any) -> None:
        asked.append(model)
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.fixture
def folders(tmp_path: Path, tiny_folder: Path) -> Path:
    """Three runs: one with a checkpoint, one without; and a file and a folder that are none."""
    shutil.copytree(tiny_folder, tmp_path / "runs" / "one" / "checkpoint")
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "metrics.jsonl").touch()
    (tmp_path / "policy.gguf").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nope/x", "there is no such folder"),
        ("./nope", "there is no such folder"),
        ("runs/absent", "there is no such folder"),  # `runs` is there, so no owner on the Hub is meant
        ("a/b/c", "there is no such folder"),
        ("runs/one", "is the folder of a run; its policy is {here}/runs/one/checkpoint"),
        ("runs/begun", "is the folder of a run that has no checkpoint yet"),
        ("policy.gguf", "is a file; give a folder in Hugging Face format"),
        ("empty", "holds no policy in Hugging Face format: it has no config.json"),
    ],
)
def test_a_folder_that_is_none(model: str, message: str, folders: Path, no_hub: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        check_machine(load_config(["--model", model]), trainers=1)
    assert str(raised.value).endswith(message.format(here=folders))
    assert str(raised.value).startswith(f"--model {Path(model) if not Path(model).is_dir() else folders / model}")
    assert no_hub == []


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-7B", "gpt2"])
def test_a_hub_that_does_not_answer_is_asked_once(model: str, no_hub: list[str]) -> None:
    for look in (pretrained.settings, pretrained.tokenizer):
        with pytest.raises(ValueError, match="there is no such folder, and the Hub cannot be asked") as raised:
            look("--model", model)
        assert "\n" not in str(raised.value)
    assert no_hub == [model, model]


def test_the_machine_is_judged_before_the_hub_is_asked(no_hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="GPUs"):
        check_machine(load_config(["--preset", "qwen2.5-7b"]), trainers=4)
    assert no_hub == []


def test_a_policy_is_not_stretched(tiny_folder: Path) -> None:
    line = ["--model", str(tiny_folder), "--engine.max-length"]
    check_machine(load_config([*line, "256"]), trainers=1)
    with pytest.raises(ValueError, match=r"^--engine\.max-length 257: .*at most 256 tokens"):
        check_machine(load_config([*line, "257"]), trainers=1)
