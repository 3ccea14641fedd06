"""What tells two corpora apart: a hash of their passages; and what tells two passages apart: their ids."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable

from research_env.types import Corpus, Passage

_MAX_RANGES = 10_000


class ContentHash:
    """Hash of a set of passages whatever their order, so that an index can be compared with the file it came from."""

    def __init__(self) -> None:
        self.passages = 0
        self._sum = 0

    def add(self, passage: Passage) -> None:
        """Add a passage: 128 bits of each, summed."""
        # A sum and not an XOR: a passage that is there twice must not cancel itself out. The zero bytes keep
        # ("a", "b") apart from ("ab", "").
        content = "\0".join((passage.id, passage.title, passage.text)).encode("utf-8", "surrogatepass")
        self._sum += int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "big")
        self.passages += 1

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._sum % (1 << 128):032x}"


def mismatches(found: Corpus, expected: Iterable[tuple[str, Corpus]]) -> list[str]:
    """What is wrong with what was read back from an index, a line each.

    Args:
        found: What was read back.
        expected: What it should be, and where that is said, e.g. `("its own record", corpus)`.
    """
    problems = []
    for what, corpus in expected:
        if corpus.passages != found.passages:
            problems.append(f"{found.passages:,} passages, but {what} has {corpus.passages:,}")
        elif corpus.hash != found.hash:
            problems.append(f"content hash {found.hash}, but {what} has {corpus.hash}")
    return problems


class Ids:
    """Ids that were seen. Numbers that count up, as wiki-18's 21 million do, are kept as ranges and need no memory.

    After `"5", "6", "9"` the ranges are 5 to 7 and 9 to 10, the ends excluded.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending; range number i is from _starts[i] to _ends[i] - 1
        self._ends: list[int] = []
        self._others: set[bytes] = set()
        """Hashes of the ids that are in no range: 8 bytes each, whatever their length."""

    def add(self, ident: str) -> bool:
        """Remember an id; False where it was seen before."""
        # "01" and "٠" are numbers to `int`, but other ids than "1" and "0": only the canonical form is a number here.
        if ident.isascii() and ident.isdecimal() and len(ident) < 19 and (ident[0] != "0" or ident == "0"):
            number = int(ident)
            last = self._ends[-1] if self._ends else -1
            # A number above all ranges is new, unless it was put among the others when the ranges were full.
            if number >= last and not (self._others and _digest(ident) in self._others):
                if number == last:
                    self._ends[-1] += 1
                    return True
                if len(self._starts) < _MAX_RANGES:
                    self._starts.append(number)
                    self._ends.append(number + 1)
                    return True
            at = bisect_right(self._starts, number) - 1
            if at >= 0 and number < self._ends[at]:
                return False
        # Everything else: ids that are not numbers, and numbers lower than the last.
        digest = _digest(ident)
        if digest in self._others:
            return False
        self._others.add(digest)
        return True


def _digest(ident: str) -> bytes:
    return hashlib.blake2b(ident.encode(), digest_size=8).digest()
