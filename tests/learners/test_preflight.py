"""What is refused before work starts."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from learners import preflight
from learners.config import Config, load_config
from learners.environment import EnvironmentFault
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


@pytest.mark.parametrize(
    ("answer", "refused"), [(b"\0\0\0\4" + bytes(5), None), (b"HTTP/1.1 400 Bad Request", "something else does")]
)
def test_only_a_cluster_of_rays_is_taken(answer: bytes, refused: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait 40 seconds for another program on that port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(64)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        if refused is None:
            check_machine(load_config([]), trainers=1)
        else:
            with pytest.raises(ValueError, match=refused):
                check_machine(load_config([]), trainers=1)
        thread.join()


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


def test_one_process_holds_one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:door")  # not asked for
    check_machine(load_config(["--cluster", "local"]), trainers=1)
    check_machine(load_config(["--cluster", "local", "--trainer.count", "2"]), trainers=0)  # an evaluation
    for section in ("engine", "trainer"):
        config = load_config(["--cluster", "local", f"--{section}.count", "2"])
        with pytest.raises(ValueError, match=rf"--cluster local.*--{section}\.count is 2") as caught:
            check_machine(config, trainers=config.trainer.count)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("absent", "named"), [("ray", "pip install.*--cluster local"), ("vllm", "pip install.*--engine.kind transformers")]
)
def test_what_is_not_installed_is_named_with_the_way_around_it(
    absent: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == absent else find_spec(name))
    with pytest.raises(ValueError, match=named) as caught:
        check_machine(load_config([]), trainers=1)
    assert "\n" not in str(caught.value)
    check_machine(load_config(["--cluster", "local", "--engine.kind", "transformers"]), trainers=1)


def test_one_process_shares_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_machine(load_config(["--cluster", "local", "--engine.device", "cuda", "--trainer.device", "cuda"]), 1)


def test_a_renderer_is_tried_with_the_models_tokenizer(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def configured(renderer: str) -> Config:
        return load_config(["--model", str(tiny_folder), "--renderer", renderer, "--engine.max-length", "256"])

    check_machine(configured("plain"), trainers=1)
    with pytest.raises(ValueError, match=r"^--renderer templated.*no chat template") as caught:
        check_machine(configured("templated"), trainers=1)
    assert "\n" not in str(caught.value)


def test_wrappers_are_made_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wrapper = '{"name": "gymnasium.wrappers:TimeLimit", "kwargs": {"max_steps": 3}}'
    with pytest.raises(EnvironmentFault, match=r"TimeLimit cannot be called with \(env, max_steps=\)"):
        check(load_config(["--research.wrappers", wrapper]))
    check(load_config(["--research.wrappers", wrapper.replace("max_steps", "max_episode_steps")]))


def test_a_model_that_packed_attention_does_not_serve_is_refused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where it is trained, and only where the window is shorter than an episode."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = shutil.copytree(tiny_folder, tmp_path / "windowed")
    settings = json.loads((folder / "config.json").read_text())
    layers = ["sliding_attention"] * settings["num_hidden_layers"]
    changed = {"use_sliding_window": True, "sliding_window": 128, "layer_types": layers}
    (folder / "config.json").write_text(json.dumps(settings | changed))
    given = ["--model", str(folder), "--engine.max-length"]
    with pytest.raises(
        ValueError, match=r"^--model .*windowed: it needs a window of 128 tokens.* --engine.max-length 128"
    ):
        check_machine(load_config([*given, "129"]), trainers=1)
    check_machine(load_config([*given, "129"]), trainers=0)
    check_machine(load_config([*given, "128"]), trainers=1)
