"""Advantages and policy losses: pure functions of tensors, one algorithm each, no framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def group_advantages(rewards: Sequence[float]) -> np.ndarray:
    """GRPO's advantage: the reward standardised within its group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Args:
        rewards: `[G]`, of the trajectories of one question.

    Returns:
        `[G]` float32; all 0.0 where every reward is the same. The standard deviation is the sample's (G - 1), as in
        the code of ReSearch.
    """
    r = np.asarray(rewards, np.float32)
    if r.max() == r.min():
        return np.zeros_like(r)
    return (r - r.mean()) / (r.std(ddof=1) + np.float32(1e-6))


def clipped_loss(logprobs: Tensor, behaviour: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate for each token (arXiv 1707.06347, equation 7), negated to be minimised.

    Args:
        logprobs: `[N]` nats under the policy in training; has the gradient.
        behaviour: `[N]` nats under the policy that sampled the tokens.
        advantages: `[N]`.
        clip: The ratio's bound epsilon; it is clipped to `[1 - clip, 1 + clip]`.

    Returns:
        `(loss [N], clipped [N] bool)`; clipped marks tokens whose gradient the bound has cut off.
    """
    ratio = torch.exp(logprobs - behaviour)
    free, bounded = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(free, bounded), bounded < free


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each token, `[N]` nats: `r - log r - 1` with `r = reference / policy`.

    Schulman's third estimator, the "low_var_kl" of the ReSearch code; never negative, and bounded at 10 as there: one
    token that the policy has all but given up would otherwise outweigh the whole batch.
    """
    difference = reference - logprobs
    return (torch.exp(difference) - difference - 1).clamp(max=10.0)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How rewards become advantages, and how tokens become a loss."""

    advantages: Callable[[Sequence[float]], np.ndarray]
    """Rewards of a group `[G]` -> advantages `[G]`."""
    loss: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    """`(logprobs, behaviour, advantages, clip)`, `[N]` each -> `(loss [N], clipped [N])`."""


ALGORITHMS: dict[str, Algorithm] = {
    "grpo": Algorithm(group_advantages, clipped_loss),
}
"""Algorithm name -> its parts. The trainer adds the KL term and takes the mean over all tokens of the global batch."""
