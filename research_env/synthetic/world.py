"""A generated encyclopedia: entities, the facts between them, and one article each, all from one seed.

Entities belong to a split, and facts never cross splits, so nothing about the test questions can be learned
from the training questions. Every stream of random numbers is `random.Random(text).random()`, which Python
keeps bit for bit on every machine and version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from research_env.synthetic.names import make_names, shuffle
from research_env.synthetic.relations import KINDS, RELATIONS
from research_env.types import Passage

SPLITS = {"train": 0.6, "dev": 0.2, "test": 0.2}
"""Share of the entities that each split owns."""

MIN_ENTITIES, MAX_ENTITIES = 100, 1_000_000

VERSION = 2
"""Raise when the same seed would give other bytes: cached indexes are keyed by it."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Entity number `index` of the world; its article is the passage with id `e<index>`."""

    index: int
    name: str
    kind: str
    split: str


class World:
    """All entities and facts of one seed. Articles are rendered on demand."""

    def __init__(self, seed: int, num_entities: int) -> None:
        self.seed, self.num_entities = seed, num_entities
        rng = Random(f"world {VERSION} {seed} {num_entities}")
        self.entities: list[Entity] = []
        self.members: dict[tuple[str, str], list[int]] = {}
        """`(split, kind)` -> indexes of its entities."""
        for kind, (start, stop) in _slices(num_entities, {k: v.share for k, v in KINDS.items()}).items():
            names = make_names(kind, stop - start, rng)
            for split, (first, last) in _slices(stop - start, SPLITS).items():
                self.members[split, kind] = list(range(start + first, start + last))
                self.entities += [Entity(start + i, names[i], kind, split) for i in range(first, last)]
        self.facts: list[dict[int, int]] = [{} for _ in RELATIONS]
        """Relation number -> subject index -> object index. At most one object a subject: answers are unique."""
        for relation, facts in zip(RELATIONS, self.facts, strict=True):
            for split in SPLITS:
                subjects, objects = self.members[split, relation.subject], self.members[split, relation.object]
                if relation.mutual:
                    order = list(subjects)
                    shuffle(order, rng)
                    for a, b in zip(order[::2], order[1::2], strict=False):  # an odd one out stays alone
                        facts[a], facts[b] = b, a
                else:
                    for subject in subjects:
                        at = int(rng.random() * len(objects))
                        if objects[at] == subject:  # nobody teaches himself
                            at = (at + 1) % len(objects)
                        facts[subject] = objects[at]

    def article(self, index: int) -> Passage:
        """The article of entity `index`: an opening, then its facts in random order and wording, about 50 words."""
        entity = self.entities[index]
        kind = KINDS[entity.kind]
        rng = Random(f"article {self.seed} {index}")

        def pick(options: tuple[str, ...]) -> str:
            return options[int(rng.random() * len(options))]

        pronoun, sort = pick(kind.pronouns), pick(kind.sorts)
        sentences = [
            pick(relation.sentences).format(s=entity.name, p=pronoun, o=self.entities[facts[index]].name)
            for relation, facts in zip(RELATIONS, self.facts, strict=True)
            if index in facts
        ]
        shuffle(sentences, rng)
        opening = f"{entity.name} is {'an' if sort[0] in 'aeiou' else 'a'} {sort}."
        return Passage(f"e{index}", entity.name, " ".join([opening, *sentences]))

    def articles(self) -> Iterator[Passage]:
        """Every article, in order of entity."""
        return (self.article(index) for index in range(self.num_entities))


def _slices(total: int, shares: dict[str, float]) -> dict[str, tuple[int, int]]:
    """Cut `range(total)` into contiguous parts of the given shares (which add up to 1)."""
    parts, done, start = {}, 0.0, 0
    for key, share in shares.items():
        # The running total is rounded, and not each share, so that the parts add up to `total`.
        done += share
        stop = round(total * done)
        parts[key] = (start, stop)
        start = stop
    return parts
