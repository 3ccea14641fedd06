"""GRPO's credit, share and loss against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.algorithms.grpo import GRPO, GRPOSettings, group_advantages
from learners.types import Scores, TokenInputs, Trajectory

MakeTrajectory = Callable[..., Trajectory]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        # mean 1/4; deviations 3/4, -1/4, -1/4, -1/4; variance (9 + 1 + 1 + 1)/16 / 3 = 1/4; deviation 1/2
        ([1.0, 0.0, 0.0, 0.0], [1.5, -0.5, -0.5, -0.5]),
        # mean 1/2; variance (4 x 1/4)/3 = 1/3; 0.5 x sqrt(3)
        ([1.0, 0.0, 1.0, 0.0], [0.8660254, -0.8660254, 0.8660254, -0.8660254]),
        # mean 2; variance (1 + 0 + 1)/2 = 1
        ([1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0], [0.0]),
    ],
)
def test_group_advantages(rewards: list[float], expected: list[float]) -> None:
    advantages = group_advantages(rewards)
    assert advantages.dtype == np.float32
    np.testing.assert_allclose(advantages, expected, atol=5e-6)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 6 / 7, 1.0]), min_size=2, max_size=16))
def test_group_advantages_are_standardised(rewards: list[float]) -> None:
    advantages = group_advantages(rewards)
    if len(set(rewards)) == 1:
        assert not advantages.any()
    else:
        assert abs(advantages.mean()) < 1e-5
        assert abs(advantages.std(ddof=1) - 1) < 1e-3
        assert advantages[int(np.argmax(rewards))] == advantages.max() > 0


def test_every_token_gets_the_advantage_of_its_episode(make_trajectory: MakeTrajectory) -> None:
    """Rewards 1, 0, 0, 0: advantages 1.5 and -0.5, as above; the groups do not mix."""
    groups = [
        [make_trajectory(5 + i, [(2, 5)], float(i == 0)) for i in range(4)],
        [make_trajectory(4, [(1, 3)], 1.0, group=1) for _ in range(2)],
    ]
    credits = GRPO(GRPOSettings()).credit(groups, Scores())
    assert [len(credit.advantages) for credit in credits] == [5, 6, 7, 8, 4, 4]
    expected = [1.5, -0.5, -0.5, -0.5, 0.0, 0.0]
    np.testing.assert_allclose([credit.advantages[0] for credit in credits], expected, atol=5e-6)
    assert all(len(set(credit.advantages.tolist())) == 1 for credit in credits)


@pytest.mark.parametrize(("flat_episodes", "kept"), [(None, 8), (2, 6), (9, 8)])
def test_a_group_without_advantage_is_stood_for_by_a_few(
    make_trajectory: MakeTrajectory, flat_episodes: int | None, kept: int
) -> None:
    """Two groups of four with five sampled tokens each; the first has rewards 1, 0, 1, 0, the second none.

    Each token of the first group weighs 1/40; the second group weighs half of the whole, however many stand for it.
    """
    groups = [
        [make_trajectory(9, [(3, 8)], float(i % 2 == 0)) for i in range(4)],
        [make_trajectory(9, [(3, 8)], 0.0, group=1) for _ in range(4)],
    ]
    shares = GRPO(GRPOSettings(flat_episodes=flat_episodes)).share(groups)
    assert sum(share.any() for share in shares) == kept
    assert float(sum(share.sum() for share in shares[:4])) == pytest.approx(0.5)
    assert float(sum(share.sum() for share in shares[4:])) == pytest.approx(0.5)
    np.testing.assert_allclose(shares[0], [0, 0, 0, 1 / 40, 1 / 40, 1 / 40, 1 / 40, 1 / 40, 0], rtol=1e-6)


def test_the_loss_is_the_clipped_surrogate() -> None:
    """Ratios 1 and 1.5 with advantage 2 under a bound of 0.2: -2 and -2.4, the second one cut off."""
    behaviour = torch.tensor([-1.0, -1.0])
    tokens = TokenInputs(
        behaviour + torch.tensor([1.0, 1.5]).log(), behaviour, torch.tensor([2.0, 2.0]), torch.tensor([0, 0]),
        torch.tensor([0, 0]),
    )  # fmt: skip
    loss = GRPO(GRPOSettings(clip=0.2)).loss(tokens)
    np.testing.assert_allclose(loss.per_token.numpy(), [-2.0, -2.4], atol=1e-6)
    assert loss.metrics["clipped"].tolist() == [False, True]


def test_the_kl_term_needs_a_reference_and_can_be_left_out() -> None:
    (term,) = GRPO(GRPOSettings(kl=0.4, final_kl=0.1)).terms()
    assert (term.name, term.needs) == ("kl", {"reference"})
    np.testing.assert_allclose([term.coefficient(progress) for progress in (0.0, 0.5, 1.0)], [0.4, 0.2, 0.1])
    assert GRPO(GRPOSettings(kl=0.0, final_kl=0.1)).terms() == []
    (constant,) = GRPO(GRPOSettings(kl=0.3)).terms()
    assert {constant.coefficient(progress) for progress in (0.0, 0.5, 1.0)} == {0.3}
