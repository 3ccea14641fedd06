"""The policy in training: log-probabilities, loss, step. Sharded over trainers by FSDP2 where there are several."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import AutoTokenizer

from learners.config import Config
from learners.objectives import ALGORITHMS, k3
from learners.packed_model import load_model, token_logprobs
from learners.types import Batch

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Trainer:
    """One rank of the trainer. Every method is called on every rank, with the rank's own batches."""

    def __init__(self, config: Config, model: str, rank: int = 0) -> None:
        """Load the policy, and where `config.kl` asks for one the reference policy, from `model`.

        The policy's weights are float32 whatever `trainer.dtype` says, which is the precision of its arithmetic: a
        step of 1e-6 is lost in a bfloat16 weight. The reference is never updated and is kept in `trainer.dtype`.
        """
        self.config, self.rank = config, rank
        settings = config.trainer
        dtype = getattr(torch, settings.dtype)
        torch.manual_seed(config.seed)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.policy = self._shard(load_model(model, torch.float32, settings.device), dtype)
        self.policy.train()
        self.reference = None
        if config.kl > 0:
            self.reference = self._shard(load_model(model, dtype, settings.device), dtype).eval().requires_grad_(False)
        self._loss = ALGORITHMS[config.algorithm].loss
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
        )

    def _shard(self, model: Any, dtype: torch.dtype) -> Any:
        if self.config.trainer.count > 1:
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
            for layer in model.model.layers:
                fully_shard(layer, mp_policy=precision)
            fully_shard(model, mp_policy=precision)
        return model

    def _logprobs(self, model: Any, batch: Batch) -> Tensor:
        settings = self.config.trainer
        alone = settings.count == 1 and settings.dtype != "float32"  # sharded models cast by themselves
        with torch.autocast(settings.device, getattr(torch, settings.dtype), enabled=alone):
            return token_logprobs(model, batch, self.config.temperature)

    def step(self, batches: Sequence[Batch], tokens: int, learning_rate: float, kl: float) -> dict[str, float]:
        """One optimiser step over the rank's batches.

        Args:
            batches: As many on every rank (an empty share is a batch whose mask is all False).
            tokens: Trained tokens of the global batch: the loss is their mean.
            learning_rate: Of this step.
            kl: Coefficient of the KL term.

        Returns:
            This rank's part of the means over the global batch (`loss`, `kl`, `clipped`, `ratio_gap`: mean
            |log ratio|, `entropy_estimate`, nats), and `gradient_norm`.
        """
        sums = torch.zeros(5, dtype=torch.float64)
        for batch in batches:
            logprobs = self._logprobs(self.policy, batch)
            behaviour, advantages, weights = (
                torch.tensor(values[batch.mask], device=logprobs.device)
                for values in (batch.logprobs, batch.advantages, batch.weights)
            )
            shares = weights / tokens
            loss, clipped = self._loss(logprobs, behaviour, advantages, self.config.clip)
            divergence = torch.zeros_like(logprobs)
            if self.reference is not None:
                with torch.no_grad():
                    reference = self._logprobs(self.reference, batch)
                divergence = k3(logprobs, reference)
            total = (shares * (loss + kl * divergence)).sum()
            # FSDP takes the mean over ranks; the global mean over tokens is their sum.
            (total * self.config.trainer.count).backward()
            sums += _sums(total, *(shares * v for v in (divergence, clipped, (logprobs - behaviour).abs(), -logprobs)))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.trainer.gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        names = ("loss", "kl", "clipped", "ratio_gap", "entropy_estimate")
        return dict(zip(names, sums.tolist(), strict=True)) | {"gradient_norm": float(_local(norm))}

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> np.ndarray:
        """Log-probability of each token in `batch.mask`, `[N]` nats."""
        return self._logprobs(self.policy, batch).float().cpu().numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """The policy's weights under their Hugging Face names, on rank 0; nothing on the others."""
        state: Any = get_model_state_dict(self.policy, options=_WHOLE)
        if self.rank:
            return {}
        tied = getattr(self.policy.config, "tie_word_embeddings", False)
        # NumPy has no bfloat16, so other precisions travel as float32 and are cast where they arrive.
        return {name: t.float().numpy() for name, t in state.items() if not (tied and name == "lm_head.weight")}

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint that replaces the one in `folder` only once it is whole."""
        weights = get_model_state_dict(self.policy, options=_WHOLE)
        optimizer = get_optimizer_state_dict(self.policy, self.optimizer, options=_WHOLE)
        if self.rank:
            return
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.policy.save_pretrained(partial, state_dict=weights)
        self.tokenizer.save_pretrained(partial)
        random = {"torch": torch.get_rng_state()}
        torch.save({"optimizer": optimizer, "random": random}, partial / "training.pt")
        (partial / "state.json").write_text(json.dumps(state))
        replace_folder(partial, folder)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint written by `save`."""
        from safetensors.torch import load_file

        weights: Any = {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}
        set_model_state_dict(self.policy, weights, options=StateDictOptions(full_state_dict=True, strict=False))
        saved = torch.load(folder / "training.pt", weights_only=True)
        set_optimizer_state_dict(
            self.policy, self.optimizer, saved["optimizer"], options=StateDictOptions(full_state_dict=True)
        )
        torch.set_rng_state(saved["random"]["torch"])


def replace_folder(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`, so that a kill at any moment leaves one whole folder to resume from."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sums(*values: Tensor) -> Tensor:
    return torch.stack([value.detach().sum().double().cpu() for value in values])


def _local(value: Any) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value
