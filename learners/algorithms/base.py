"""What an algorithm is. `Algorithm` has a default for everything but the two parts that make one: credit and loss.

In one step the loop asks an algorithm, in this order: `keep` for each group as it is played; `share` for each update;
`probes`, whose likelihoods the trainer computes with whatever else is in `needs`; `credit` for the whole step; and, in
the trainer's process, `loss` and `terms` for each batch. Only what was asked for is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from learners.algorithms.terms import k3
from learners.types import Credit, Group, Loss, Probe, Scores, TokenInputs

if TYPE_CHECKING:
    from torch import Tensor

SCORES = frozenset({"old", "reference", "probes"})
"""What the trainer can compute for an algorithm."""


class Objective(BaseModel):
    """Knobs that every algorithm has: the section `objective` of the configuration. An algorithm adds its own."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    kl: float = Field(0.001, ge=0)
    """Coefficient of the k3 KL term to the first policy; 0 needs no reference model."""
    final_kl: float | None = Field(None, gt=0)
    """The coefficient at the last step, reached geometrically; None keeps it."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term that the trainer adds to the loss of any algorithm, e.g. the KL divergence from the reference policy."""

    name: str
    """Its metric is `policy/<name>`."""
    value: Callable[[TokenInputs], Tensor]
    """-> `[N]`, one number a token; weighted by the token's share."""
    first: float
    """Coefficient at the first step."""
    last: float | None = None
    """Coefficient at the last step, reached geometrically; None keeps the first."""
    needs: frozenset[str] = frozenset()
    """Of `SCORES`, computed only for the trajectories that are trained on."""

    def coefficient(self, progress: float) -> float:
        """The coefficient when a share `progress` of the run, from 0 to 1, is over."""
        # No geometric path begins at 0, so a first coefficient of 0 stays 0.
        if self.last is None or not self.first:
            return self.first
        return self.first * (self.last / self.first) ** progress


class Algorithm:
    """Base of every algorithm. Made once in the loop and once in each trainer, from the same settings."""

    Settings: ClassVar[type[Objective]] = Objective
    """Model of the section `objective`."""
    needs: frozenset[str] = frozenset()
    """Of `SCORES`: what credit and loss look at. It is computed once a step, before credit, for every trajectory."""
    rounds: int = 0
    """Times in a step that groups which `keep` rejects are replaced by groups of new questions."""

    def __init__(self, settings: Any) -> None:
        """Keep the settings, an instance of `Settings`."""
        self.settings = settings

    def keep(self, group: Group) -> bool:
        """Whether a group is trained on. A rejected group is replaced, at most `rounds` times a step."""
        return True

    def probes(self, groups: Sequence[Group]) -> list[Probe]:
        """Extra sequences whose likelihood under the policy `credit` will look at; asked where `needs` names them."""
        return []

    def credit(self, groups: Sequence[Group], scores: Scores) -> list[Credit]:
        """Credit for each trajectory of the step, in order, group by group."""
        raise NotImplementedError

    def share(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """For each trajectory of one update, `[L]`: what each token weighs in the objective.

        A trajectory whose shares are all 0 is not trained on and costs nothing. By default every sampled token of the
        update weighs the same, and together they weigh 1: the objective is their mean.
        """
        trajectories = [trajectory for group in groups for trajectory in group]
        # All sampled tokens count, also those whose advantage is 0: the objective is a mean over the whole update.
        tokens = sum(int(t.mask.sum()) for t in trajectories)
        return [t.mask.astype(np.float32) / np.float32(max(1, tokens)) for t in trajectories]

    def loss(self, tokens: TokenInputs) -> Loss:
        """Loss of each trained token, to be minimised."""
        raise NotImplementedError

    def terms(self) -> list[Term]:
        """Terms that the trainer adds to the loss; by default the KL term, where its coefficient is not 0."""
        if not self.settings.kl:
            return []
        return [Term("kl", _divergence, self.settings.kl, self.settings.final_kl, frozenset({"reference"}))]


def _divergence(tokens: TokenInputs) -> Tensor:
    assert tokens.reference is not None  # the term's needs name it
    return k3(tokens.logprobs, tokens.reference)
