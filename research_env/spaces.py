"""The space of texts. Gymnasium's own `Text` cannot hold Unicode prose: its charset is a list of characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from research_env import shared_texts


class Prose(Space[str]):
    """Every `str` of at most `max_length` characters (no bound where it is None)."""

    def __init__(
        self,
        max_length: int | None = None,
        sampler: Callable[[np.random.Generator], str] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)
        self.max_length, self._sampler = max_length, sampler

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """An example text, drawn from this space's own generator; an empty one where there is no sampler."""
        return self._sampler(self.np_random) if self._sampler else ""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    # Without the sampler: a vector environment compares its spaces, and each of them samples from its own episode.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prose) and self.max_length == other.max_length

    def __repr__(self) -> str:
        return "Prose()" if self.max_length is None else f"Prose({self.max_length})"


# `AsyncVectorEnv` asks for these by the type of a space.
create_shared_memory.register(Prose, shared_texts.create)
read_from_shared_memory.register(Prose, shared_texts.read)  # type: ignore[arg-type]  # any sequence will do
write_to_shared_memory.register(Prose, shared_texts.write)
