"""What is refused before work starts."""

from __future__ import annotations

import socket

import pytest
import torch

from learners.grpo import load_config
from learners.preflight import check, check_machine


def test_a_cluster_that_is_not_there_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given in (address, f"ray://{address}", "127.0.0.1:door"):
        monkeypatch.setenv("RAY_ADDRESS", given)
        with pytest.raises(ValueError, match="no Ray cluster answers there") as caught:
            check_machine(load_config([]), trainers=1)
        assert f"RAY_ADDRESS={given}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cluster_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        check_machine(load_config([]), trainers=1)


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, tiny_folder: object) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = load_config(["--engine.device", "cuda", "--trainer.device", "cuda", "--engine.count", "1"])
    with pytest.raises(ValueError, match=r"needs 3 GPUs \(1 for engines\), and this machine has 1"):
        check_machine(config, trainers=2)
    check_machine(config, trainers=0)  # an evaluation


@pytest.mark.parametrize("section", ["kwargs", "eval_kwargs", "blind_kwargs"])
def test_every_environment_of_a_run_is_made_first(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load_config([])
    environment = config.research.model_copy(update={section: {"splitt": "dev"}, "stages": []})
    with pytest.raises(Exception, match="splitt"):
        check(config.model_copy(update={"research": environment}))
