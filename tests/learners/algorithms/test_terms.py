"""Losses and divergences against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.algorithms.terms import clipped_loss, k3


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # Inside [0.8, 1.2]: loss = -ratio x advantage, and its gradient in the log-probability is the same number.
        (1.0, 2.0, -2.0, -2.0, False),
        (1.0, -2.0, 2.0, 2.0, False),
        (1.1, 2.0, -2.2, -2.2, False),
        (0.9, -2.0, 1.8, 1.8, False),
        # Good token, already more likely than 1.2 times: min(1.5 x 2, 1.2 x 2) = 2.4, and no gradient.
        (1.5, 2.0, -2.4, 0.0, True),
        # Good token that became less likely: min(0.5 x 2, 0.8 x 2) = 1.0: it is pulled back up.
        (0.5, 2.0, -1.0, -1.0, False),
        # Bad token, already less likely than 0.8 times: min(0.5 x -2, 0.8 x -2) = -1.6, and no gradient.
        (0.5, -2.0, 1.6, 0.0, True),
        # Bad token that became more likely: min(1.5 x -2, 1.2 x -2) = -3.0: it is pushed down.
        (1.5, -2.0, 3.0, 3.0, False),
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_clipped_loss(ratio: float, advantage: float, loss: float, gradient: float, clipped: bool) -> None:
    behaviour = torch.tensor([-1.3])
    logprobs = (behaviour + math.log(ratio)).requires_grad_()
    value, cut = clipped_loss(logprobs, behaviour, torch.tensor([advantage]), 0.2, 0.2)
    value.sum().backward()
    assert logprobs.grad is not None
    assert value.item() == pytest.approx(loss, abs=1e-5)
    assert logprobs.grad.item() == pytest.approx(gradient, abs=1e-5)
    assert cut.tolist() == [clipped]


def test_clipped_loss_is_one_number_a_token() -> None:
    """Tokens do not mix: each has its own ratio and bound. exp(0.5) = 1.6487, exp(-0.5) = 0.6065."""
    logprobs = torch.tensor([-1.0, -0.5, -1.5])
    behaviour = torch.tensor([-1.0, -1.0, -1.0])
    loss, clipped = clipped_loss(logprobs, behaviour, torch.tensor([1.0, 1.0, 1.0]), 0.3, 0.3)
    np.testing.assert_allclose(loss.numpy(), [-1.0, -1.3, -0.6065307], atol=1e-6)
    assert clipped.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("policy", "reference", "expected"),
    [
        # r = reference / policy; r - log r - 1
        (0.5, 0.5, 0.0),
        (0.25, 0.5, 2 - math.log(2) - 1),  # 0.3068528
        (0.5, 0.25, 0.5 - math.log(0.5) - 1),  # 0.1931472
    ],
)
def test_k3(policy: float, reference: float, expected: float) -> None:
    value = k3(torch.tensor([math.log(policy)]), torch.tensor([math.log(reference)]))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_k3_estimates_the_divergence() -> None:
    """Its mean under the policy is KL(policy || reference): 0.7 log(0.7/0.4) + 0.3 log(0.3/0.6) = 0.183787."""
    policy, reference = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    mean = (policy * k3(policy.log(), reference.log())).sum()
    assert mean.item() == pytest.approx(0.183787, abs=1e-5)


@given(st.floats(-8, 0), st.floats(-8, 0))
def test_k3_is_never_negative(policy: float, reference: float) -> None:
    assert k3(torch.tensor([policy]), torch.tensor([reference])).item() >= -1e-6


def test_k3_is_bounded() -> None:
    # r = e^8 = 2981: r - 8 - 1 = 2972, bounded at 10, and no gradient comes from a bounded token.
    logprobs = torch.tensor([-9.0], requires_grad=True)
    divergence = k3(logprobs, torch.tensor([-1.0]))
    divergence.sum().backward()
    assert divergence.item() == 10.0
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0.0


def test_the_two_bounds_may_differ() -> None:
    """Ratio 1.25 is inside [0.8, 1.28] and ratio 0.75 is outside: -1.25 and min(-0.75, -0.8) x -1 = 0.8."""
    behaviour = torch.tensor([-1.0, -1.0])
    logprobs = behaviour + torch.tensor([1.25, 0.75]).log()
    loss, clipped = clipped_loss(logprobs, behaviour, torch.tensor([1.0, -1.0]), 0.2, 0.28)
    np.testing.assert_allclose(loss.numpy(), [-1.25, 0.8], atol=1e-6)
    assert clipped.tolist() == [False, True]
