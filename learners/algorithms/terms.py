"""Pieces that several algorithms share: pure functions of tensors, one number a token. They need no import of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


FARTHEST = 20.0
"""Nats by which two log-probabilities can differ; beyond, they count as this far apart, and have no gradient.

The bound is taken before the exponential. A bound on the result alone would leave the gradient `0 x inf`, which is nan.
"""


def clipped_loss(
    logprobs: Tensor, behaviour: Tensor, advantages: Tensor, below: float, above: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate for each token (arXiv 1707.06347, equation 7), negated to be minimised.

    Args:
        logprobs: `[N]` nats under the policy in training; has the gradient.
        behaviour: `[N]` nats under the policy that sampled the tokens.
        advantages: `[N]`.
        below: The ratio is bounded to `[1 - below, 1 + above]`.
        above: As `below`; the two differ in DAPO (arXiv 2503.14476, equation 10).

    Returns:
        `(loss [N], clipped [N] bool)`; clipped marks tokens whose gradient the bound has cut off. Loss and gradient are
        finite for any log-probabilities but nan.
    """
    ratio = _difference(logprobs, behaviour).exp()
    # The smaller of the two is taken: the bound may only take away a gain, and must never hide a loss.
    free, bounded = ratio * advantages, ratio.clamp(1 - below, 1 + above) * advantages
    return -free.minimum(bounded), bounded < free


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each token, `[N]` nats: `r - log r - 1` with `r = reference / policy`.

    Schulman's third estimator, the "low_var_kl" of the ReSearch code; never negative, and bounded at 10 as there: one
    token that the policy has all but given up would otherwise outweigh the whole batch.
    """
    difference = _difference(reference, logprobs)
    return (difference.exp() - difference - 1).clamp(max=10.0)


def _difference(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).clamp(-FARTHEST, FARTHEST)
