"""What somebody else's data set must be, checked where it is loaded: a dataclass does not check its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from research_env.corpora.content import Ids
from research_env.errors import ConfigurationError, DataInvalid
from research_env.text import mended
from research_env.types import Dataset, Hop, Passage, Pool, Question


def checked(loaded: Any, name: str) -> Dataset:
    """What a loader returned.

    Raises:
        ConfigurationError: it is not a data set.
    """
    what = f"dataset={name!r}"
    if not isinstance(loaded, Dataset):
        raise ConfigurationError(f"{what} returns {type(loaded).__name__}, not a research_env.types.Dataset")
    if not isinstance(loaded.splits, Mapping):
        raise ConfigurationError(
            f"{what}: splits is {type(loaded.splits).__name__}, not a mapping of split to questions"
        )
    if not isinstance(loaded.pool, Pool | None):
        raise ConfigurationError(f"{what}: pool is {type(loaded.pool).__name__}, not a research_env.types.Pool or None")
    if loaded.pool and not (callable(loaded.pool.passages) and callable(loaded.pool.count)):
        raise ConfigurationError(f"{what}: passages and count of its pool must be functions")
    if loaded.pool and ":" in name:  # our own pools are tested; checking each of their passages would only take time
        pool = loaded.pool
        return replace(loaded, pool=replace(pool, passages=lambda: _checked_passages(pool, what)))
    return loaded


def _checked_passages(pool: Pool, what: str) -> Iterator[Passage]:
    """The passages of somebody else's pool, their texts as Unicode.

    Raises:
        DataInvalid: it yields anything else, or not as many as it says. The index would be kept, and wrong for good.
    """
    number = 0
    seen = Ids()
    for passage in pool.passages():
        if not isinstance(passage, Passage):
            raise DataInvalid(f"{what}: its pool yields {type(passage).__name__}, not a research_env.types.Passage")
        if not all(isinstance(text, str) for text in (passage.id, passage.title, passage.text)):
            raise DataInvalid(f"{what}: its pool yields a Passage whose id, title and text are not all str")
        if not _whole(passage.id, passage.title, passage.text):
            passage = Passage(mended(passage.id), mended(passage.title), mended(passage.text))
        if not seen.add(passage.id):  # an index keeps one passage for an id: the other would silently be lost
            raise DataInvalid(f"{what}: its pool has two passages with the id {passage.id!r}")
        number += 1
        yield passage
    if number != pool.count():
        raise DataInvalid(f"{what}: its pool says that it has {pool.count():,} passages, but yields {number:,}")


def mended_question(each: Question) -> Question:
    """The question with all of its texts as Unicode. It is the same object where they are, as nearly always."""
    hops = each.decomposition
    texts = (each.id, each.text, *each.answers, *each.gold_passages)
    if _whole(*texts, *(text for hop in hops for text in (hop.question, hop.answer, hop.passage_id))):
        return each
    return Question(
        mended(each.id),
        mended(each.text),
        tuple(map(mended, each.answers)),
        each.hops,
        tuple(Hop(mended(hop.question), mended(hop.answer), mended(hop.passage_id)) for hop in hops),
        tuple(map(mended, each.gold_passages)),
    )


def _whole(*texts: object) -> bool:
    """Whether no text holds half of a surrogate pair. One check for all, because it is made at every reset."""
    together = "".join(map(str, texts))
    return together.isascii() or mended(together) is together


def is_question(each: Any) -> bool:
    """Whether this can be asked and scored."""
    if not isinstance(each, Question) or not isinstance(each.text, str):
        return False
    return isinstance(each.answers, tuple | list) and len(each.answers) > 0


def check_ids(name: str, split: str, found: Sequence[Question]) -> None:
    """Check that no two questions have the same id: evaluation takes them for one, and `question_id` reaches only one.

    Raises:
        ConfigurationError: two have.
    """
    seen: dict[str, int] = {}
    for number, question in enumerate(found):
        if (before := seen.setdefault(question.id, number)) != number:
            raise ConfigurationError(
                f"dataset={name!r}: questions {before} and {number} of split {split!r} have the same id {question.id!r}"
            )
