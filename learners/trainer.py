"""The policy in training: scores, loss, step. Sharded over trainers by FSDP2 where there are several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import AutoTokenizer

from learners import checkpoint, plugins
from learners.algorithms.base import Algorithm
from learners.config import Config
from learners.errors import Fault
from learners.packed_model import layers_of, load_model, recompute, token_logprobs
from learners.plugins import PluginFault
from learners.types import Batch, Loss, TokenInputs

MOST_SKIPPED = 3
"""Updates in a row that may come to nothing before the run stops."""

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Trainer:
    """One rank of the trainer. Every method is called on every rank, with the rank's own batches."""

    def __init__(self, config: Config, model: str, rank: int = 0, reference: str | None = None) -> None:
        """Load the policy from `model`, and where the algorithm or one of its terms needs it the reference policy, from
        `reference`; None takes `model`.

        The policy's weights are float32 whatever `trainer.dtype` says, which is the precision of its arithmetic: a
        step of 1e-6 is lost in a bfloat16 weight. The reference is never updated and is kept in `trainer.dtype`.
        """
        self.config, self.rank = config, rank
        settings = config.trainer
        dtype = getattr(torch, settings.dtype)
        torch.manual_seed(config.seed)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        # Loaded by name, because this may be another process than the loop's: it imports the algorithm's module itself.
        self._algorithm: Algorithm = plugins.make_algorithm(config.algorithm, config.objective)
        self._terms = self._algorithm.terms()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.policy = self._shard(load_model(model, torch.float32, settings.device), dtype)
        self.reference = None
        if "reference" in self._algorithm.needs.union(*(term.needs for term in self._terms)):
            self.reference = self._shard(load_model(reference or model, dtype, settings.device), dtype)
            self.reference.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
        )
        self._skipped = 0
        """Updates in a row, up to now, that were not made."""

    def _shard(self, model: Any, dtype: torch.dtype) -> Any:
        if self.config.trainer.recompute:
            recompute(model)
        if self.config.trainer.count > 1:
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
            for layer in layers_of(model):
                fully_shard(layer, mp_policy=precision)
            fully_shard(model, mp_policy=precision)
        return model

    def _logprobs(self, model: Any, batch: Batch) -> Tensor:
        settings = self.config.trainer
        alone = settings.count == 1 and settings.dtype != "float32"  # a sharded model casts by itself
        with torch.autocast(settings.device, getattr(torch, settings.dtype), enabled=alone):
            return token_logprobs(model, batch, self.config.temperature)

    @torch.no_grad()
    def score(self, batches: Sequence[Batch], wanted: frozenset[str]) -> list[dict[str, np.ndarray]]:
        """Log-probabilities of the tokens of batches, before anything is learned from them.

        Args:
            batches: As many on every rank.
            wanted: `old` (the policy as it is now), `reference`, or both.

        Returns:
            For each batch, name -> `[T]` float32 nats, 0.0 where the mask is False.
        """
        models = {"old": self.policy, "reference": self.reference}
        found = []
        for batch in batches:
            columns = {}
            for name in sorted(wanted):
                column = np.zeros(len(batch.ids), np.float32)
                column[batch.mask] = self._logprobs(models[name], batch).float().cpu().numpy()
                columns[name] = column
            found.append(columns)
        return found

    def step(
        self, batches: Sequence[Batch], learning_rate: float, coefficients: Mapping[str, float]
    ) -> dict[str, float]:
        """One optimiser step over the rank's batches.

        Where loss or gradient are not finite numbers, on any rank, no rank changes its weights or its optimiser.

        Args:
            batches: As many on every rank (an empty share is a batch whose mask is all False).
            learning_rate: Of this step.
            coefficients: Name -> coefficient of each of the algorithm's terms.

        Returns:
            This rank's part of sums over the tokens of the global batch, weighted by their shares, so of means where
            the shares add up to 1: `loss`, `ratio_gap` (|log ratio| to the behaviour policy, nats),
            `entropy_estimate` (nats), one of the name of each term, and the loss's own metrics; and of the whole update
            `gradient_norm`, and `skipped`: 1.0 where the weights were not changed.

        Raises:
            PluginFault: the loss does not fit.
            Fault: this was the third update in a row that was skipped.
        """
        sums: dict[str, Tensor] = {}
        for batch in batches:
            tokens, shares = self._inputs(batch)
            loss = self._checked(self._algorithm.loss(tokens), tokens)
            terms = {term.name: term.value(tokens) for term in self._terms}
            per_token = loss.per_token
            for name, value in terms.items():
                per_token = per_token + coefficients[name] * value
            total = (shares * per_token).sum()
            # FSDP takes the mean over ranks; the objective is their sum.
            (total * self.config.trainer.count).backward()
            gap = (tokens.logprobs - tokens.behaviour).abs()
            told = {**terms, **loss.metrics, "ratio_gap": gap, "entropy_estimate": -tokens.logprobs}
            parts = {"loss": total} | {name: (shares * value).sum() for name, value in told.items()}
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.detach().double().cpu()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.trainer.gradient_norm)
        found = {name: float(value) for name, value in sums.items()} | {"gradient_norm": float(_local(norm))}
        sound = self._everywhere(isfinite(found["loss"]) and isfinite(found["gradient_norm"]))
        if sound:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._skipped = 0 if sound else self._skipped + 1
        if self._skipped == MOST_SKIPPED:
            raise Fault(self._advice(found, learning_rate))
        return found | {"skipped": float(not sound)}

    def _everywhere(self, sound: bool) -> bool:
        """Whether all ranks are sound. One that went its own way would have other weights from then on."""
        if self.config.trainer.count == 1:
            return sound
        unsound = torch.tensor(float(not sound), device=self.config.trainer.device)
        torch.distributed.all_reduce(unsound)
        return not unsound.item()

    def _advice(self, found: Mapping[str, float], learning_rate: float) -> str:
        precision = "" if self.config.trainer.dtype == "float32" else ", or --trainer.dtype float32"
        return (
            f"{MOST_SKIPPED} updates in a row had a loss or a gradient that is not a finite number (the last: loss "
            f"{found['loss']:g}, gradient norm {found['gradient_norm']:g}) and were skipped; go on from the last good "
            f"weights with a lower --trainer.learning-rate (it was {learning_rate:g}){precision}"
        )

    def _checked(self, loss: Loss, tokens: TokenInputs) -> Loss:
        """What an algorithm made of a batch; it may be somebody else's, and a scalar would be taken for every token."""
        what = f"{type(self._algorithm).__name__}.loss"
        if not isinstance(loss, Loss):
            raise PluginFault(f"{what} returned {type(loss).__name__}; return a learners.types.Loss")
        for name, value in {"per_token": loss.per_token, **loss.metrics}.items():
            if getattr(value, "shape", None) != tokens.logprobs.shape:
                shape = tuple(getattr(value, "shape", ()))
                count = len(tokens.logprobs)
                raise PluginFault(f"{what}: {name} has shape {shape}; give one number for each of the {count} tokens")
        return loss

    def _inputs(self, batch: Batch) -> tuple[TokenInputs, Tensor]:
        """The trained tokens of a batch, and their shares `[N]`."""
        logprobs = self._logprobs(self.policy, batch)
        sequence = np.repeat(np.arange(len(batch.lengths)), batch.lengths)

        def column(values: np.ndarray) -> Tensor:
            return torch.tensor(values[batch.mask], device=logprobs.device)

        tokens = TokenInputs(
            logprobs=logprobs,
            behaviour=column(batch.logprobs),
            advantages=column(batch.advantages),
            sequence=column(sequence),
            turn=column(batch.turns),
            **{name: column(values) for name, values in batch.columns.items()},
        )
        return tokens, column(batch.shares)

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> np.ndarray:
        """Log-probability of each token in `batch.mask`, `[N]` nats."""
        return self._logprobs(self.policy, batch).float().cpu().numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """The policy's weights under their Hugging Face names, on rank 0; nothing on the others."""
        state: Any = get_model_state_dict(self.policy, options=_WHOLE)
        if self.rank:
            return {}
        # A tied head is the embedding itself: sent twice, it would be twice the bytes.
        tied = getattr(self.policy.config, "tie_word_embeddings", False)
        # NumPy has no bfloat16, so other precisions travel as float32 and are cast where they arrive.
        return {name: t.float().numpy() for name, t in state.items() if not (tied and name == "lm_head.weight")}

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint that replaces the one in `folder` only once it is whole."""
        # Every rank must take part in these two, or the others wait for ever.
        weights = get_model_state_dict(self.policy, options=_WHOLE)
        # Asked before the first update, torch would make an empty one to fill the state, and AdamW counts updates.
        begun = bool(self.optimizer.state)
        optimizer = get_optimizer_state_dict(self.policy, self.optimizer, options=_WHOLE) if begun else {}
        if self.rank:
            return

        def fill(partial: Path) -> None:
            self.policy.save_pretrained(partial, state_dict=weights)
            self.tokenizer.save_pretrained(partial)
            torch.save({"optimizer": optimizer, "random": {"torch": torch.get_rng_state()}}, partial / "training.pt")

        checkpoint.write(folder, state, fill)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint written by `save`."""
        from safetensors.torch import load_file

        weights: Any = {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}
        # Not strict, because a tied head is not in the file.
        set_model_state_dict(self.policy, weights, options=StateDictOptions(full_state_dict=True, strict=False))
        saved = torch.load(folder / "training.pt", weights_only=True)
        self._skipped = 0
        if saved["optimizer"]:
            set_optimizer_state_dict(
                self.policy, self.optimizer, saved["optimizer"], options=StateDictOptions(full_state_dict=True)
            )
        else:  # it was saved before the first update
            self.optimizer.state.clear()
        torch.set_rng_state(saved["random"]["torch"])


def _local(value: Any) -> Tensor:
    # The norm of a sharded model is a DTensor, of which every rank holds a part.
    return value.full_tensor() if hasattr(value, "full_tensor") else value
