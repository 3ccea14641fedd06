"""A pass over a corpus, which counts and hashes what it hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_env.corpora.content import ContentHash, Ids
from research_env.corpora.formats import read, to_passage
from research_env.errors import DataInvalid
from research_env.text import passage_id
from research_env.types import Corpus, Passage, Pool


@dataclass
class CorpusReader:
    """One pass over a corpus: iterate once, and take `again()` for another pass."""

    name: str
    rows: Callable[[], Iterable[tuple[str, Any]]]
    """A fresh pass over `(where, row)`; a row is JSON, a `Passage`, or the `DataInvalid` that is in its place."""
    skip_bad: bool = False
    """Leave out bad rows and count them; otherwise the first one is an error."""
    total: int | None = None
    """Number of passages, where it is known beforehand."""
    skipped: int = 0
    """Bad rows that were left out so far."""
    content: ContentHash = field(default_factory=ContentHash)
    """Hash of the passages handed out so far."""

    def __iter__(self) -> Iterator[Passage]:
        """Passages in their order.

        Raises:
            DataInvalid: a row is invalid, or an id comes a second time (names file and line); or there is no passage.
        """
        seen = Ids()
        # Passages of a data set come as they are, rows of a file as JSON: one loop checks both.
        for where, row in self.rows():
            try:
                if isinstance(row, DataInvalid):
                    raise row
                passage = row if isinstance(row, Passage) else to_passage(row, where)
                # An index keeps one passage for an id: of two, one would silently be lost.
                if not seen.add(passage.id):
                    # An id made from the content comes again with the same passage, e.g. one that questions share.
                    if passage.id == passage_id(passage.title, passage.text):
                        continue
                    raise DataInvalid(f"{where}: id {passage.id!r} was there before; ids must be unique")
            except DataInvalid:
                if not self.skip_bad:
                    raise
                self.skipped += 1
                continue
            self.content.add(passage)
            yield passage
        if not self.content.passages:
            raise DataInvalid(f"corpus {self.name} holds no passages")

    def again(self) -> CorpusReader:
        """A reader of the same corpus that has not read anything yet."""
        return CorpusReader(self.name, self.rows, self.skip_bad, self.total)

    def corpus(self) -> Corpus:
        """What has been handed out so far."""
        return Corpus(self.name, self.content.passages, self.content.hexdigest())

    def read(self) -> Corpus:
        """Read to the end, and return what was read.

        Raises:
            DataInvalid: as iteration.
        """
        for _ in self:
            pass
        return self.corpus()


def open_file(path: Path, skip_bad: bool = False) -> CorpusReader:
    """The passages of a file of any of the formats in `research_env.corpora.formats`."""
    return CorpusReader(path.name.split(".")[0], lambda: read(path), skip_bad)


def from_pool(pool: Pool, skip_bad: bool = False) -> CorpusReader:
    """The passages of a data set. They come from no file that a person reads, so `where` is empty."""
    return CorpusReader(pool.name, lambda: (("", passage) for passage in pool.passages()), skip_bad, pool.count())
