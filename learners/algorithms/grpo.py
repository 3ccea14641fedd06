"""GRPO (DeepSeekMath, arXiv 2402.03300), with the loss as a mean over all sampled tokens of the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from learners.algorithms.base import Algorithm, Objective
from learners.algorithms.terms import clipped_loss
from learners.types import Credit, Group, Loss, Scores, TokenInputs


class GRPOSettings(Objective):
    """Knobs of GRPO."""

    clip: float = Field(0.2, gt=0)
    """Bound of the probability ratio."""
    flat_episodes: int | None = Field(None, ge=1)
    """How many episodes are trained on, of a group whose rewards are all the same: only the KL term teaches there. They
    get the weight of the whole group, so the objective's mean is unchanged. None takes all."""


class GRPO(Algorithm):
    """Rewards standardised within each group; every token of an episode gets its episode's advantage."""

    Settings: ClassVar[type[Objective]] = GRPOSettings

    def credit(self, groups: Sequence[Group], scores: Scores) -> list[Credit]:
        return [
            Credit(np.full(len(trajectory.ids), advantage, np.float32))
            for group in groups
            for trajectory, advantage in zip(group, group_advantages([t.reward for t in group]), strict=True)
        ]

    def share(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """In a group without an advantage only the KL term is left, so a few of its episodes can represent all."""
        shares = super().share(groups)
        at = 0
        for group in groups:
            kept = len(group)
            if self.settings.flat_episodes and len({t.reward for t in group}) == 1:
                kept = min(kept, self.settings.flat_episodes)
            for place in range(len(group)):
                # Scaled up so that the group as a whole weighs what it weighed before.
                shares[at] = shares[at] * np.float32(len(group) / kept if place < kept else 0.0)
                at += 1
        return shares

    def loss(self, tokens: TokenInputs) -> Loss:
        clip = self.settings.clip
        loss, clipped = clipped_loss(tokens.logprobs, tokens.behaviour, tokens.advantages, clip, clip)
        return Loss(loss, {"clipped": clipped})


def group_advantages(rewards: Sequence[float]) -> np.ndarray:
    """GRPO's advantage: the reward standardised within its group (DeepSeekMath, section 4.1.2).

    Args:
        rewards: `[G]`, of the trajectories of one question.

    Returns:
        `[G]` float32; all 0.0 where every reward is the same. The standard deviation is the sample's (G - 1), as in
        the code of ReSearch.
    """
    r = np.asarray(rewards, np.float32)
    # Not `std() == 0`: rounding can leave a little above 0, and a group of which one episode is left has none at all.
    if r.max() == r.min():
        return np.zeros_like(r)
    return (r - r.mean()) / (r.std(ddof=1) + np.float32(1e-6))
