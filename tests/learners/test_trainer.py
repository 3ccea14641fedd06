"""One step of the trainer against the same step made by hand on a plain model; checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners.algorithms.grpo import GRPO
from learners.config import Config, load_config
from learners.packing import emptied, pack
from learners.plugins import PluginFault
from learners.trainer import Trainer
from learners.types import Batch, Credit, Loss, TokenInputs, Trajectory

RATE, CLIP, KL, NORM, DECAY = 1e-3, 0.2, 0.5, 0.8, 0.01


@pytest.fixture
def config() -> Config:
    return load_config(
        f"--objective.kl {KL} --objective.clip {CLIP} --temperature 1.25 --trainer.threads 1 "
        f"--trainer.gradient-norm {NORM} --trainer.weight-decay {DECAY}".split()
    )


@pytest.fixture
def batches(make_trajectory: Callable[..., Trajectory], tiny_folder: Path, config: Config) -> list[Batch]:
    """Two batches of two sequences, their behaviour near the policy: some ratios are 1, some beyond the bounds."""
    spans = {40: [(5, 20), (30, 40)], 25: [(10, 25)], 33: [(3, 20)], 12: [(6, 12)]}
    trajectories = [make_trajectory(n, turns, seed=n) for n, turns in spans.items()]
    advantages = [1.0, -0.5, -1.5, 2.0]
    credits = [Credit(np.full(len(t.ids), a, np.float32)) for t, a in zip(trajectories, advantages, strict=True)]
    tokens = sum(int(t.mask.sum()) for t in trajectories)
    made = pack(trajectories, 60, credits, [t.mask.astype(np.float32) / tokens for t in trajectories])
    assert len(made) == 2
    trainer = Trainer(config, str(tiny_folder))
    rng = np.random.default_rng(0)
    moved = []
    for batch in made:
        behaviour = batch.logprobs.copy()
        gap = rng.choice([0.0, 0.1, -0.1, 0.5, -0.5], int(batch.mask.sum())).astype(np.float32)
        behaviour[batch.mask] = trainer.logprobs(batch) - gap
        moved.append(replace(batch, logprobs=behaviour))
    return referred(trainer, moved)


def referred(trainer: Trainer, batches: list[Batch]) -> list[Batch]:
    """The batches with what the reference policy says of them."""
    scores = trainer.score(batches, frozenset({"reference"}))
    return [replace(batch, columns=columns) for batch, columns in zip(batches, scores, strict=True)]


def joined(batches: list[Batch]) -> Batch:
    """All of them in one."""
    names = ("ids", "lengths", "mask", "turns", "logprobs", "advantages", "shares")
    columns = {name: np.concatenate([batch.columns[name] for batch in batches]) for name in batches[0].columns}
    return Batch(**{name: np.concatenate([getattr(b, name) for b in batches]) for name in names}, columns=columns)


def step(trainer: Trainer, batches: list[Batch], rate: float = RATE, kl: float = KL) -> dict[str, float]:
    return trainer.step(batches, rate, {"kl": kl})


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def plain_logprobs(model: Any, batch: Batch, temperature: float) -> torch.Tensor:
    """One sequence a forward pass, `[N]`."""
    values = []
    edges = np.cumsum(batch.lengths)[:-1]
    for ids, mask in zip(np.split(batch.ids, edges), np.split(batch.mask, edges), strict=True):
        logprobs = torch.log_softmax(model(torch.tensor(ids)[None]).logits[0] / temperature, -1)
        values += [logprobs[t - 1, ids[t]] for t in range(len(ids)) if mask[t]]
    return torch.stack(values)


def tokens(batches: list[Batch]) -> int:
    return sum(int(batch.mask.sum()) for batch in batches)


def test_a_step_is_the_one_made_by_hand(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """Mean over the tokens of all batches, clipped gradient, AdamW's first step: p(1 - rate x decay) - rate x g/|g|."""
    model = plain(tiny_folder)
    total, gaps, cut = torch.tensor(0.0), [], 0
    for batch in batches:
        logprobs = plain_logprobs(model, batch, config.temperature)
        advantages = torch.from_numpy(batch.advantages[batch.mask])
        ratio = torch.exp(logprobs - torch.from_numpy(batch.logprobs[batch.mask]))
        for r, a in zip(ratio, advantages, strict=True):
            beyond = (a > 0 and r > 1 + CLIP) or (a < 0 and r < 1 - CLIP)
            total = total - (r.detach().clamp(1 - CLIP, 1 + CLIP) if beyond else r) * a
            cut += int(beyond)
        gaps += ratio.detach().log().abs().tolist()
    loss = total / tokens(batches)
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    assert norm > NORM, "the gradient was to be clipped"

    trainer = Trainer(config, str(tiny_folder))
    metrics = step(trainer, batches)
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["clipped"] == pytest.approx(cut / tokens(batches))
    assert metrics["clipped"] > 0
    assert metrics["ratio_gap"] == pytest.approx(np.mean(gaps), abs=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert abs(metrics["kl"]) < 1e-6, "the reference is the policy itself before the first step"

    compared = 0
    for (name, ours), before in zip(trainer.policy.named_parameters(), model.parameters(), strict=True):
        gradient = before.grad * NORM / norm
        certain = gradient.abs() > 1e-4  # below, rounding decides the sign, and with it the whole step
        expected = before * (1 - RATE * DECAY) - RATE * gradient / (gradient.abs() + 1e-8)
        assert (ours - expected)[certain].abs().max() < 1e-2 * RATE, name
        assert (ours - before).abs().max() <= RATE * (1.01 + DECAY * before.abs().max()), name
        compared += int(certain.sum())
    assert compared > 10_000


def test_how_the_batches_are_cut_changes_nothing(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """The loss is the mean over all tokens, not the mean of the batches' means."""
    whole = joined(batches)
    split = step(Trainer(config, str(tiny_folder)), batches)
    together = step(Trainer(config, str(tiny_folder)), [whole])
    for name, value in split.items():
        assert value == pytest.approx(together[name], rel=1e-4, abs=1e-6), name


def test_a_share_is_as_good_as_the_token_so_many_times(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """Twice the share is the token twice; where the shares add up to 2, so do the sums."""
    heavy = [replace(batch, shares=2 * batch.shares) for batch in batches]
    weighted = step(Trainer(config, str(tiny_folder)), heavy)
    twice = step(Trainer(config, str(tiny_folder)), [*batches, *batches])
    for name, value in weighted.items():
        assert value == pytest.approx(twice[name], rel=1e-4, abs=1e-6), name


def test_the_kl_term(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """After a step, k3 of policy against reference, by hand; with no advantage left, it pulls the policy back."""
    trainer = Trainer(config, str(tiny_folder))
    step(trainer, batches, kl=0.0)
    moved, first = plain(tiny_folder), plain(tiny_folder)
    moved.load_state_dict(trainer.policy.state_dict())
    idle = [
        replace(batch, advantages=batch.advantages * 0, logprobs=np.where(batch.mask, -1, 0).astype(np.float32))
        for batch in batches
    ]
    with torch.no_grad():
        pairs = [(plain_logprobs(moved, b, 1.25), plain_logprobs(first, b, 1.25)) for b in idle]
    expected = sum(((ref - new).exp() - (ref - new) - 1).sum().item() for new, ref in pairs) / tokens(idle)
    assert expected > 1e-4
    metrics = step(trainer, idle, RATE / 10)
    assert metrics["kl"] == pytest.approx(expected, rel=1e-3)
    assert metrics["loss"] == pytest.approx(KL * expected, rel=1e-3)
    pulled = [step(trainer, idle)["kl"] for _ in range(15)]
    assert pulled[-1] < expected / 2


def test_without_a_kl_term_there_is_no_reference_model(tiny_folder: Path) -> None:
    assert (
        Trainer(
            load_config(["--objective.kl", "0", "--objective.final-kl", "null", "--trainer.threads", "1"]),
            str(tiny_folder),
        ).reference
        is None
    )


def test_tokens_that_are_not_the_policys_are_not_trained_on(
    tiny_folder: Path, config: Config, batches: list[Batch]
) -> None:
    """Behaviour and advantage outside the mask, whatever they are, leave the step as it is."""

    def weights_after(given: list[Batch]) -> dict[str, np.ndarray]:
        trainer = Trainer(config, str(tiny_folder))
        step(trainer, given)
        return trainer.weights()

    noisy = [
        replace(
            batch,
            logprobs=np.where(batch.mask, batch.logprobs, -9).astype(np.float32),
            advantages=np.where(batch.mask, batch.advantages, 99).astype(np.float32),
        )
        for batch in batches
    ]
    clean = weights_after(batches)
    for name, array in weights_after(noisy).items():
        np.testing.assert_array_equal(array, clean[name])


def test_weights_are_named_as_hugging_face_names_them(tiny_folder: Path, config: Config) -> None:
    """The tied head is the embedding and travels once."""
    weights = Trainer(config, str(tiny_folder)).weights()
    model = plain(tiny_folder)
    assert set(weights) == set(model.state_dict()) - {"lm_head.weight"}
    for name, array in weights.items():
        np.testing.assert_array_equal(array, model.state_dict()[name].numpy())


def test_a_checkpoint_goes_on_bit_for_bit(
    tiny_folder: Path, config: Config, batches: list[Batch], tmp_path: Path
) -> None:
    first = Trainer(config, str(tiny_folder))
    step(first, batches)
    first.save(tmp_path / "checkpoint", {"step": 1})
    expected = step(first, batches)

    second = Trainer(config, str(tiny_folder))
    second.load(tmp_path / "checkpoint")
    assert step(second, batches) == expected
    for name, array in second.weights().items():
        np.testing.assert_array_equal(array, first.weights()[name])


def test_a_checkpoint_is_a_hugging_face_folder(
    tiny_folder: Path, config: Config, batches: list[Batch], tmp_path: Path
) -> None:
    trainer = Trainer(config, str(tiny_folder))
    step(trainer, batches)
    trainer.save(tmp_path / "checkpoint", {"step": 1})
    trainer.save(tmp_path / "checkpoint", {"step": 2})  # over the one before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    for name, array in trainer.weights().items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array)
    loaded, original = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "checkpoint", tiny_folder))
    assert loaded.encode("<search> Varn </search>") == original.encode("<search> Varn </search>")


def test_an_empty_share_keeps_the_ranks_in_step_and_teaches_nothing(
    tiny_folder: Path, config: Config, batches: list[Batch]
) -> None:
    one, two = Trainer(config, str(tiny_folder)), Trainer(config, str(tiny_folder))
    metrics = step(one, batches)
    assert step(two, [*batches, emptied(batches[0])]) == metrics
    assert all(torch.equal(a, b) for a, b in zip(one.policy.parameters(), two.policy.parameters(), strict=True))


def test_bfloat16_arithmetic_loses_no_small_step(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """A learning rate of 1e-6 moves every float32 weight that has a gradient; bfloat16 weights would stand still."""
    trainer = Trainer(config.model_copy(update={"trainer": config.trainer.model_copy(update={"dtype": "bfloat16"})}),
                      str(tiny_folder))  # fmt: skip
    before = trainer.policy.model.norm.weight.detach().clone()
    step(trainer, batches, 1e-6)
    assert trainer.policy.model.norm.weight.dtype == torch.float32
    assert (trainer.policy.model.norm.weight != before).float().mean() > 0.9


def test_scores_are_those_of_the_models_alone(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """`old` is the policy as it is now, `reference` the first one; 0.0 on what was not sampled."""
    trainer = Trainer(config, str(tiny_folder))
    step(trainer, batches)
    moved, first = plain(tiny_folder), plain(tiny_folder)
    moved.load_state_dict(trainer.policy.state_dict())
    for batch, scores in zip(batches, trainer.score(batches, frozenset({"old", "reference"})), strict=True):
        for name, model in (("old", moved), ("reference", first)):
            with torch.no_grad():
                expected = plain_logprobs(model, batch, 1.25).numpy()
            np.testing.assert_allclose(scores[name][batch.mask], expected, atol=1e-5)
            assert not scores[name][~batch.mask].any()
            assert scores[name].dtype == np.float32


def test_a_loss_sees_sequences_and_turns(tiny_folder: Path, config: Config, batches: list[Batch]) -> None:
    """A trajectory is whole in its batch: tokens of one sequence can be told apart, and its turns too."""
    trainer = Trainer(config, str(tiny_folder))
    batch = next(b for b in batches if 40 in b.lengths)
    tokens_seen, shares = trainer._inputs(batch)
    place = batch.lengths.tolist().index(40)
    turns = tokens_seen.turn[tokens_seen.sequence == place]
    assert turns.tolist() == [0] * 15 + [1] * 10
    assert len(shares) == len(tokens_seen.logprobs) == int(batch.mask.sum())


class Odd(GRPO):
    """Gives whatever `what` says as its loss."""

    what = "tensor"

    def loss(self, tokens: TokenInputs) -> Any:
        loss = super().loss(tokens)
        return {"tensor": loss.per_token, "scalar": Loss(loss.per_token.mean())}[self.what]


@pytest.mark.parametrize(("what", "named"), [("tensor", "returned Tensor"), ("scalar", r"per_token has shape \(\)")])
def test_a_loss_that_does_not_fit_is_named(
    tiny_folder: Path, config: Config, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, what: str, named: str
) -> None:
    trainer = Trainer(config, str(tiny_folder))
    monkeypatch.setattr(Odd, "what", what)
    trainer._algorithm = Odd(config.objective)
    with pytest.raises(PluginFault, match=named):
        step(trainer, batches)


def test_saving_changes_nothing(tiny_folder: Path, config: Config, batches: list[Batch], tmp_path: Path) -> None:
    """A run that is saved before its first step and after each, one that is not, and a resumed one: the same bits."""
    plain, saved, resumed = (Trainer(config, str(tiny_folder)) for _ in range(3))
    random = torch.get_rng_state()
    saved.save(tmp_path / "checkpoint", {"step": 0})
    assert torch.equal(torch.get_rng_state(), random)
    assert len(saved.optimizer.state) == 0, "an empty step of AdamW would make the next one its second"
    resumed.load(tmp_path / "checkpoint")
    for number in range(3):
        expected = step(plain, batches)
        assert step(saved, batches) == step(resumed, batches) == expected
        saved.save(tmp_path / "checkpoint", {"step": number})
        for trainer in (saved, resumed):
            for ours, theirs in zip(trainer.policy.parameters(), plain.policy.parameters(), strict=True):
                assert torch.equal(ours, theirs)
                mine, other = trainer.optimizer.state[ours], plain.optimizer.state[theirs]
                assert {name: v.tolist() for name, v in mine.items()} == {n: v.tolist() for n, v in other.items()}
                assert mine["step"] == number + 1


def test_a_checkpoint_of_the_beginning_forgets_later_updates(
    tiny_folder: Path, config: Config, batches: list[Batch], tmp_path: Path
) -> None:
    trainer = Trainer(config, str(tiny_folder))
    trainer.save(tmp_path / "checkpoint", {"step": 0})
    first = step(trainer, batches)
    trainer.load(tmp_path / "checkpoint")
    assert step(trainer, batches) == first
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {1}
