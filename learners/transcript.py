"""Tokens in, tokens out: an episode as a growing list of ids with a mask. Sampled ids are never re-encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learners.types import Completion, Status, Trajectory, Turn


class Transcript:
    """Grows by what the environment says (mask False) and what the policy samples (mask True).

    For example `Transcript([9, 8])`, then `act` with the ids 5, 17, 2, then `observe([7, 7])`: the ids are
    `[9, 8, 5, 17, 2, 7, 7]`, and the one turn is from position 2 to 5, the end excluded.
    """

    def __init__(self, prompt: Sequence[int]) -> None:
        self.ids: list[int] = list(prompt)
        self._mask = [False] * len(self.ids)
        self._logprobs = [0.0] * len(self.ids)
        self._turns: list[Turn] = []

    def __len__(self) -> int:
        return len(self.ids)

    def observe(self, ids: Sequence[int]) -> None:
        """Append what the environment said, `[O]`."""
        self.ids += ids
        self._mask += [False] * len(ids)
        self._logprobs += [0.0] * len(ids)

    def act(self, completion: Completion, reward: float = 0.0, info: Mapping[str, Any] | None = None) -> None:
        """Append a turn of the policy, `[C]`, once the environment has answered it.

        Args:
            completion: As sampled.
            reward: What the environment gave for the turn.
            info: The environment's `info` after the turn.
        """
        start = len(self.ids)
        self.ids += completion.ids
        self._mask += [True] * len(completion.ids)
        self._logprobs += completion.logprobs
        # An empty completion is a turn too: the environment took it and may have rewarded it.
        self._turns.append(Turn(start, len(self.ids), reward, (completion.version,), info or {}))

    def finish(
        self, *, status: Status, seed: int, group: int = 0, info: Mapping[str, Any] | None = None,
        text: tuple[tuple[str, str], ...] = (),
    ) -> Trajectory:  # fmt: skip
        """The trajectory; the arguments are the fields of `Trajectory` that are not about tokens."""
        return Trajectory(
            ids=np.array(self.ids, np.int32),
            mask=np.array(self._mask, bool),
            logprobs=np.array(self._logprobs, np.float32),
            turns=tuple(self._turns),
            status=status,
            seed=seed,
            group=group,
            info=info or {},
            text=text,
        )
