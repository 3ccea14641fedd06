"""The language of the generated encyclopedia: kinds of entity, relations, and how English says them.

Pure data. In sentences `{s}` is the subject's name, `{p}` its pronoun, `{o}` the object's name; in phrases
and questions `{x}` is the subject: a name, or the noun phrase of an earlier hop. The word that a sentence shares with
its relation's questions ("born", "employed") stands shortly before the object.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of entity, the share of the world that it fills, and the professions or sorts it comes in."""

    share: float
    sorts: tuple[str, ...]
    pronouns: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "person": Kind(0.4, ("painter", "botanist", "sailor", "judge", "composer", "baker", "pilot"), ("He", "She")),
    "place": Kind(0.2, ("town", "city", "port", "village", "capital"), ("It",)),
    "work": Kind(0.2, ("novel", "poem", "play", "opera", "ballad"), ("It",)),
    "organisation": Kind(0.2, ("company", "society", "charity", "college", "league"), ("It",)),
}


@dataclass(frozen=True, slots=True)
class Relation:
    """A fact type. Functional: a subject has at most one object, so a chain of relations has one answer."""

    name: str
    subject: str
    object: str
    sentences: tuple[str, ...]
    """Ways an article states the fact."""
    phrases: tuple[str, ...]
    """Noun phrases for the object, for use inside a longer question."""
    questions: tuple[str, ...]
    """Questions that ask for the object. They share a word with every sentence, as in most real question sets."""
    mutual: bool = False
    """True where the object has the same relation to the subject (marriage)."""


# The order counts: facts are drawn relation by relation from one stream, so a change here needs a new `world.VERSION`.
RELATIONS: tuple[Relation, ...] = (
    Relation(
        "birthplace", "person", "place",
        ("{p} was born in {o}.", "{s} was born in {o}.", "{p} was indeed born in {o}."),
        ("the place where {x} was born", "the place {x} was born in"),
        ("Where was {x} born?", "In which place was {x} born?"),
    ),
    Relation(
        "employer", "person", "organisation",
        ("{p} is employed by {o}.", "{s} is employed by {o}.", "{p} has long been employed by {o}."),
        ("the organisation {x} is employed by", "the organisation that has {x} employed"),
        ("Who is {x} employed by?", "By which organisation is {x} employed?"),
    ),
    Relation(
        "spouse", "person", "person",
        ("{p} is married to {o}.", "{s} is married to {o}.", "{p} has for years been married to {o}."),
        ("the person {x} is married to", "the person married to {x}"),
        ("Who is {x} married to?", "To whom is {x} married?"),
        mutual=True,
    ),
    Relation(
        "teacher", "person", "person",
        ("{p} was taught by {o}.", "{s} was taught by {o}.", "{p} was early on taught by {o}."),
        ("the person who taught {x}", "the person by whom {x} was taught"),
        ("Who taught {x}?", "By whom was {x} taught?"),
    ),
    Relation(
        "mayor", "place", "person",
        ("Its mayor is {o}.", "In {s} the mayor is {o}.", "The present mayor is {o}."),
        ("the mayor of {x}", "the person elected mayor of {x}"),
        ("Who is the mayor of {x}?", "Who was elected mayor of {x}?"),
    ),
    Relation(
        "twin", "place", "place",
        ("{p} is twinned with {o}.", "{s} is twinned with {o}.", "{p} was early twinned with {o}."),
        ("the place twinned with {x}", "the place that {x} is twinned with"),
        ("Which place is twinned with {x}?", "What is {x} twinned with?"),
        mutual=True,
    ),
    Relation(
        "anthem", "place", "work",
        ("Its anthem is {o}.", "In {s} the anthem is {o}.", "The solemn anthem is {o}."),
        ("the anthem of {x}", "the work that is the anthem of {x}"),
        ("What is the anthem of {x}?", "Which work is the anthem of {x}?"),
    ),
    Relation(
        "author", "work", "person",
        ("Its author is {o}.", "Of {s} the author is {o}.", "The young author is {o}."),
        ("the author of {x}", "the person who is the author of {x}"),
        ("Who is the author of {x}?", "Which person is the author of {x}?"),
    ),
    Relation(
        "publisher", "work", "organisation",
        ("{p} was published by {o}.", "{s} was published by {o}.", "{p} was first published by {o}."),
        ("the organisation that published {x}", "the organisation by which {x} was published"),
        ("Who published {x}?", "Which organisation published {x}?"),
    ),
    Relation(
        "setting", "work", "place",
        ("{p} is set in {o}.", "{s} is set in {o}.", "The story is set in {o}."),
        ("the place where {x} is set", "the place {x} is set in"),
        ("Where is {x} set?", "In which place is {x} set?"),
    ),
    Relation(
        "founder", "organisation", "person",
        ("{p} was founded by {o}.", "{s} was founded by {o}.", "{p} was long ago founded by {o}."),
        ("the person who founded {x}", "the person by whom {x} was founded"),
        ("Who founded {x}?", "By whom was {x} founded?"),
    ),
    Relation(
        "seat", "organisation", "place",
        ("{p} is based in {o}.", "{s} is based in {o}.", "{p} is now based in {o}."),
        ("the place where {x} is based", "the place {x} is based in"),
        ("Where is {x} based?", "In which place is {x} based?"),
    ),
    Relation(
        "owner", "organisation", "organisation",
        ("{p} is owned by {o}.", "{s} is owned by {o}.", "{p} is wholly owned by {o}."),
        ("the organisation {x} is owned by", "the organisation by which {x} is owned"),
        ("Who is {x} owned by?", "By which organisation is {x} owned?"),
    ),
)  # fmt: skip


def paths(start: str, hops: int) -> list[tuple[int, ...]]:
    """Chains of relations (indexes into `RELATIONS`) that `hops` searches answer, beginning at a `start` entity.

    No kind of entity is read twice on the way, so exactly one fact in each article is one that the question
    names: an article never offers a short cut to a later hop. With four kinds there are chains of up to 4 hops.
    """

    def extend(kind: str, left: int, seen: frozenset[str]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for index, relation in enumerate(RELATIONS):
            if relation.subject != kind:
                continue
            if left == 1:
                found.append((index,))
            elif relation.object not in seen:
                found += [(index, *rest) for rest in extend(relation.object, left - 1, seen | {relation.object})]
        return found

    return extend(start, hops, frozenset({start}))
