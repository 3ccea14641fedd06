"""Read an embedded index back: `python -m research_env index verify FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from research_env.corpora.content import ContentHash, mismatches
from research_env.corpora.reader import CorpusReader
from research_env.errors import ConfigurationError
from research_env.progress import track
from research_env.retrieval.embedded.bm25 import ABOUT_FILE, Bm25Index
from research_env.retrieval.embedded.dense import PASSAGES_FILE, VECTORS_FILE
from research_env.retrieval.embedded.folder import DENSE, about
from research_env.types import Corpus, Passage

_ROWS = 100_000  # vectors that are looked at together


def verify_folder(folder: Path, reader: CorpusReader | None) -> tuple[Corpus, list[str]]:
    """Compare an index with what it says about itself, and with a corpus. Every passage is read back and hashed.

    Returns:
        What is in the index, and what is wrong, a line each.

    Raises:
        ConfigurationError: the folder holds no index.
        RetrievalError: a file is damaged.
    """
    folder = folder.expanduser()
    if not (folder / ABOUT_FILE).is_file():
        begun = folder.with_name(f"{folder.name}.building").is_dir()
        raise ConfigurationError(
            f"{folder} holds no index"
            + ("; its build was not finished: run index build again to go on with it" if begun else "")
        )
    index = Bm25Index(folder)
    expected = [("its own record", index.corpus)]
    if reader is not None:
        corpus = reader.read()
        expected.append((f"corpus {corpus.name}", corpus))
    found = _read(index.corpus.name, track(index.passages(), f"reading {folder.name}", index.corpus.passages))
    problems = mismatches(found, expected)
    if (folder / DENSE).exists():
        problems += [f"vectors: {problem}" for problem in _vectors(folder / DENSE, expected)]
    if problems:
        problems.append("delete that folder and build it again")
    return found, problems


def _read(name: str, passages: Iterable[Passage]) -> Corpus:
    content = ContentHash()
    for passage in passages:
        content.add(passage)
    return Corpus(name, content.passages, content.hexdigest())


def _vectors(place: Path, expected: list[tuple[str, Corpus]]) -> list[str]:
    """What is wrong with an index's vectors and with the passages beside them."""
    there = about(place)
    try:
        found = _read(there["corpus"]["name"], track(_lines(place), "reading its vectors", expected[0][1].passages))
        problems = mismatches(found, expected)
        if (place / VECTORS_FILE).exists():  # older ones are in faiss's own format
            rows = np.memmap(place / VECTORS_FILE, np.float32, "r").reshape(-1, there["dims"])
            if len(rows) != found.passages:
                problems.append(f"{len(rows):,} vectors of {found.passages:,} passages")
            for start in range(0, len(rows), _ROWS):
                # Also false for what is not a number.
                if not (np.abs(np.linalg.norm(rows[start : start + _ROWS], axis=1) - 1) < 1e-3).all():
                    problems.append("not all of length 1")
                    break
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"they cannot be read ({error})"]
    return problems


def _lines(place: Path) -> Iterator[Passage]:
    with (place / PASSAGES_FILE).open("rb") as lines:
        for line in lines:
            yield Passage(*json.loads(line))
