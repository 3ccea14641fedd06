"""The estimate of memory against counts and measurements, and what a machine is too small for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from learners import memory, packed_check, room
from learners.config import load_config
from learners.memory import GIB
from learners.packed_model import ATTENTION, load_model, recompute, token_logprobs
from learners.packing import pack
from learners.preflight import check_machine
from learners.run import main
from learners.types import Trajectory

NODE = 80e9
"""Bytes of a GPU of 80 GB, at least."""
QWEN: dict[str, Any] = {  # config.json of Qwen/Qwen2.5-7B
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 131072, "rope_theta": 1e6,
    "use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28,
}  # fmt: skip


def qwen() -> Any:
    return packed_check.build(AutoConfig.for_model(**QWEN))


@pytest.fixture
def qwen_folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """The configuration of Qwen2.5-7B without its weights, with some tokenizer."""
    folder = shutil.copytree(tiny_folder, tmp_path / "qwen", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "config.json").write_text(json.dumps(QWEN))
    return folder


def test_parameters_are_those_that_are_published() -> None:
    """Qwen2.5-7B: 7.62 billion (its model card)."""
    assert sum(p.numel() for p in qwen().parameters()) == 7_615_616_512


def test_states_by_hand() -> None:
    """16 bytes a parameter, over four ranks; the bfloat16 reference has 2."""
    config = load_config(["--preset", "qwen2.5-7b"])
    parts = memory.trainer(config, qwen(), reference=True)
    per_rank = 7_615_616_512 / 4
    assert parts["weights"] == parts["gradients"] == 4 * per_rank
    assert parts["AdamW"] == 8 * per_rank
    assert parts["reference"] == 2 * per_rank
    # Three bfloat16 tensors of 8,704 x 152,064, and five float32 ones of a chunk of 1,024.
    assert parts["logits"] == 152_064 * (3 * 2 * 8704 + 5 * 4 * 1024)
    assert "reference" not in memory.trainer(config, qwen(), reference=False)
    engine = memory.engine(config, qwen())
    assert engine["weights"] == 2 * 7_615_616_512
    assert engine["cache of one episode"] == 2 * 28 * (4 * 128) * 2 * 8704  # keys and values of 4 heads of 128
    # Four engines' segments and Ray's copy, in float32.
    assert memory.weights_in_shared_memory(config, qwen()) == 5 * 4 * 7_615_616_512


@pytest.mark.parametrize("preset", ["qwen2.5-7b", "qwen2.5-7b-instruct"])
def test_the_preset_fits_its_node(preset: str) -> None:
    config = load_config(["--preset", preset])
    assert config.trainer.count + config.engine.count * config.engine.tensor_parallel == 8
    assert config.trainer.max_batch_tokens >= config.engine.max_length, "a whole episode must fit into a batch"
    assert memory.total(memory.trainer(config, qwen(), reference=True)) < NODE * (1 - memory.SPARE)
    assert memory.total(memory.engine(config, qwen())) < NODE * config.engine.gpu_memory_share
    before = config.model_copy(
        update={"trainer": config.trainer.model_copy(update={"recompute": False, "max_batch_tokens": 17408})}
    )
    assert memory.total(memory.trainer(before, qwen(), reference=True)) > 1.5 * NODE


@pytest.mark.parametrize("again", [False, True])
def test_activations_are_those_of_a_real_model(
    again: bool, tiny_folder: Path, make_trajectory: Callable[..., Trajectory]
) -> None:
    """What autograd keeps of a real forward pass on 480 tokens, 4 of them trained."""
    model = load_model(str(tiny_folder), torch.float32, "cpu")
    if again:
        recompute(model)
    (batch,) = pack([make_trajectory(240, [(230, 232)], seed=s) for s in range(2)], 480)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(model, batch)
    real = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    kept = memory.measured(packed_check.build(AutoConfig.from_pretrained(tiny_folder)), torch.float32)
    layers = model.config.num_hidden_layers * model.config.hidden_size * 4 if again else kept.layers
    assert real == pytest.approx(480 * (layers + kept.around), rel=0.2)


@pytest.mark.parametrize("family", ["tiny", "llama", "gpt2"])
def test_recomputing_changes_no_bit(
    family: str, tiny_folder: Path, make_trajectory: Callable[..., Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do logits in chunks, but for the order in which the gradient of the head is summed."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    settings = AutoConfig.from_pretrained(tiny_folder) if family == "tiny" else AutoConfig.for_model(family, **small)
    settings.vocab_size = 420
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION).eval()
    (batch,) = pack([make_trajectory(n, [(3, n)], seed=n) for n in (40, 30)], 80)

    def result() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        values = token_logprobs(model, batch, 1.25)
        (values * torch.linspace(-1, 1, len(values))).sum().backward()
        return values.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = result()
    recompute(model)
    again = result()
    assert torch.equal(plain[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], again[1], strict=True))
    monkeypatch.setattr("learners.packed_model.CHUNK", 16)
    chunked = result()
    assert torch.equal(plain[0], chunked[0])
    for one, other in zip(plain[1], chunked[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2e12, used=0, free=free))


def test_shared_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch, qwen_folder: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load_config(["--preset", "qwen2.5-7b", "--model", str(qwen_folder)])
    disk(monkeypatch, 64 * 2**20)
    with pytest.raises(
        ValueError, match=r"^/dev/shm has 0.06 GiB free, .* need 141.85 GiB .*--shm-size=143g"
    ) as caught:
        room.check(config, qwen(), trainers=4)
    assert "\n" not in str(caught.value)
    disk(monkeypatch, 200 * GIB)
    room.check(config, qwen(), trainers=4)
    disk(monkeypatch, 64 * 2**20)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    room.check(config, qwen(), trainers=4)  # the engines are elsewhere
    for here in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", here)
        with pytest.raises(ValueError, match=r"^/dev/shm has"):
            room.check(config, qwen(), trainers=4)


def test_a_tiny_policy_that_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    disk(monkeypatch, 2 * GIB)
    large = "--tiny.hidden 4096 --tiny.heads 32 --tiny.layers 24 --tiny.feed-forward 8192"
    with pytest.raises(ValueError, match=r"^/dev/shm has 2.00 GiB free"):
        check_machine(load_config(large.split()), trainers=1)


@pytest.mark.parametrize("cluster", ["ray", "local"])
def test_shared_memory_of_a_tiny_policy(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load_config(["--cluster", cluster])
    disk(monkeypatch, 4 * 2**20)
    with pytest.raises(ValueError, match=r"^/dev/shm has 0.00 GiB free"):
        check_machine(config, trainers=1)
    disk(monkeypatch, 64 * 2**20)
    check_machine(config, trainers=1)


def test_a_gpu_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    disk(monkeypatch, 1e12)
    given = ["--preset", "qwen2.5-7b"]
    for size, arguments, named in [
        (80e9, given, None),
        (80e9, [*given, "--trainer.max-batch-tokens", "17408"], r"^a trainer .* = 70.6 GiB, and a GPU has 74.5 GiB"),
        (80e9, [*given, "--no-trainer.recompute"], r"set --trainer.recompute, raise --trainer.count \(now 4\)"),
        (24e9, given, r"^a trainer needs about"),
        (20e9, given, r"^an engine needs about .* = 18.4 GiB on each GPU, and may use 15.8 GiB; raise --engine.tensor"),
    ]:  # fmt: skip
        monkeypatch.setattr(room, "_gpu", lambda size=size: size)
        if named is None:
            room.check(load_config(arguments), qwen(), trainers=4)
            continue
        with pytest.raises(ValueError, match=named) as caught:
            room.check(load_config(arguments), qwen(), trainers=4)
        assert "\n" not in str(caught.value)


def test_a_machine_without_enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    disk(monkeypatch, 1e12)
    config = load_config(["--trainer.recompute"])
    monkeypatch.setattr(room, "_ram", lambda: 16.0 * GIB)
    with pytest.raises(ValueError, match=r"^a trainer needs about weights 28.4 .*this machine has .* bfloat16"):
        room.check(config, qwen(), trainers=1)
    monkeypatch.setattr(room, "_ram", lambda: 0.0)
    room.check(config, qwen(), trainers=1)  # it does not say


def test_a_dry_run_prints_the_estimate_where_no_gpu_is(
    qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    given = ["--preset", "qwen2.5-7b", "--dry-run", "--runs", str(tmp_path), "--model"]
    assert main([*given, str(qwen_folder)]) == 2
    printed = capsys.readouterr()
    assert "7.616B parameters" in printed.out
    assert "each of 4 trainers: weights 7.1 + gradients 7.1 + AdamW 14.2 + reference 3.5" in printed.out
    assert "this configuration needs 8 GPUs" in printed.err
    assert main([*given, str(tmp_path / "nowhere")]) == 2
    assert "memory: not estimated (" in capsys.readouterr().out
