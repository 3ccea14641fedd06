"""`ReSearch-Synthetic-v0`: questions of 1 to 4 hops over a generated encyclopedia.

Every name is invented, so only searching can answer; train, dev and test share no entity. A 3-hop question,
its decomposition and an article:

    Where was the founder of the publisher of Amber Kelmon born?
    the publisher of Amber Kelmon -> Vornak Press; its founder -> Bram Tovan; birthplace -> Lundor Quay
    Bram Tovan / Bram Tovan is a judge. The teacher of Bram Tovan was Dex Junor. He was born in Lundor Quay. …
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import overload

from research_env.errors import ConfigurationError
from research_env.synthetic.relations import RELATIONS, paths
from research_env.synthetic.world import MAX_ENTITIES, MIN_ENTITIES, SPLITS, VERSION, World
from research_env.types import Dataset, Hop, Pool, Question

NAME = "synthetic"
HOPS = (1, 2, 3, 4)


def load(*, world_seed: int = 0, num_entities: int = 5_000) -> Dataset:
    """The world of `world_seed`, with one question for every entity and hop count in each split.

    Args:
        world_seed: Any integer. Same seed and size, same bytes.
        num_entities: Number of articles, 100 to 1,000,000.

    Raises:
        ConfigurationError: an argument is out of its range.
    """
    # True is an int to Python, and would make world 1.
    for name, value in (("world_seed", world_seed), ("num_entities", num_entities)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r}: give a whole number")
    if not MIN_ENTITIES <= num_entities <= MAX_ENTITIES:
        raise ConfigurationError(f"num_entities={num_entities}: give {MIN_ENTITIES:,} to {MAX_ENTITIES:,}")
    world = World(world_seed, num_entities)
    pool = Pool(
        name=NAME,
        fingerprint=hashlib.sha256(f"synthetic {VERSION} {world_seed} {num_entities}".encode()).hexdigest(),
        passages=world.articles,
        count=lambda: num_entities,
    )
    # The questions of a split are made on demand, so an ordinary dictionary is lazy enough.
    return Dataset(NAME, {split: SyntheticQuestions(world, split) for split in SPLITS}, pool)


class SyntheticQuestions(Sequence[Question]):
    """Questions of one split, made on demand: for each entity one question of each hop count in `hops`."""

    def __init__(self, world: World, split: str, hops: tuple[int, ...] = HOPS) -> None:
        self._world, self._split, self._hops = world, split, hops
        self._roots = [i for (owner, _), members in world.members.items() if owner == split for i in members]

    def with_hops(self, hops: Sequence[int]) -> SyntheticQuestions:
        """The same split with other hop counts; a count given twice is asked twice as often."""
        return SyntheticQuestions(self._world, self._split, tuple(h for h in hops if h in HOPS))

    def __len__(self) -> int:
        return len(self._roots) * len(self._hops)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        # Neighbours ask about one entity with another number of hops, so any run of them is balanced over hops.
        root, which = divmod(index, len(self._hops))
        hops = self._hops[which]
        name = f"synthetic-{self._world.seed}-{self._split}-{self._roots[root]}-{hops}hop"
        return make_question(self._world, self._roots[root], hops, name)


_paths = lru_cache(paths)


def make_question(world: World, root: int, hops: int, question_id: str) -> Question:
    """The `hops`-hop question that begins at entity `root`: a random chain of facts in random wording."""
    # A generator of its own for each question: it is the same whatever was asked before.
    rng = Random(f"question {world.seed} {root} {hops}")

    # Not `rng.choice`: Python promises the same numbers on every version for `rng.random()` alone.
    def pick(options: Sequence[str]) -> str:
        return options[int(rng.random() * len(options))]

    chains = [
        (path, chain) for path in _paths(world.entities[root].kind, hops) if (chain := _follow(world, root, path))
    ]
    path, chain = chains[int(rng.random() * len(chains))]
    names = [world.entities[i].name for i in chain]
    subject = names[0]
    for number in path[:-1]:
        subject = pick(RELATIONS[number].phrases).format(x=subject)
    return Question(
        id=question_id,
        text=pick(RELATIONS[path[-1]].questions).format(x=subject),
        answers=(names[-1],),
        hops=hops,
        decomposition=tuple(
            Hop(RELATIONS[number].questions[0].format(x=names[i]), names[i + 1], f"e{chain[i]}")
            for i, number in enumerate(path)
        ),
        gold_passages=tuple(f"e{i}" for i in chain[:-1]),
    )


def _follow(world: World, root: int, path: tuple[int, ...]) -> tuple[int, ...] | None:
    """Entities on the way from `root` along `path`; None where a fact is missing or the way comes back to itself."""
    chain = [root]
    for number in path:
        following = world.facts[number].get(chain[-1])
        if following is None or following in chain:  # a chain that closes would name its own answer
            return None
        chain.append(following)
    return tuple(chain)
