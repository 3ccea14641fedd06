"""Answers kept in one file, so that a run can be repeated without its server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from filelock import FileLock

from research_env.errors import RetrievalError
from research_env.text import mended
from research_env.types import Corpus, Hit, Passage


class Recording:
    """Query and top-k -> hits of one corpus under one set of settings, in an SQLite file. Thread- and process-safe."""

    def __init__(self, path: str | Path, identity: str | None = None, corpus: Corpus | None = None) -> None:
        """Open `path`; with an identity it is made where it does not exist.

        Args:
            path: The file.
            identity: Corpus and settings, as text. What was recorded under another is not mixed with it.
            corpus: Kept in a new file for `replay`.

        Raises:
            RetrievalError: the file is not a recording, cannot be opened, or is of another corpus or other settings.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        # SQLite would make the missing file, and a replay of nothing would look like a run without answers.
        if identity is None and not self.path.is_file():
            raise RetrievalError(f"recording={path}: there is no such file; make one with mode='record'")
        try:
            self._file = sqlite3.connect(self.path, check_same_thread=False, timeout=10, isolation_level=None)
            if identity is not None:
                # SQLite does not wait for another process while it changes to WAL, so one process at a time does this.
                with FileLock(f"{self.path}.lock"):
                    self._prepare(identity, corpus)
            self.about: dict[str, str] = dict(self._file.execute("SELECT key, value FROM about"))
        except (sqlite3.Error, OSError) as error:
            raise RetrievalError(f"recording={path}: {error}; give another file") from None
        if not {"identity", "corpus"} <= set(self.about):
            raise RetrievalError(f"recording={path} is not a recording; give another file")
        if identity is not None and self.about["identity"] != identity:
            raise RetrievalError(
                f"recording={path} is of another corpus or other settings: {self.about['identity']}, not {identity}; "
                "give another file"
            )

    def _prepare(self, identity: str, corpus: Corpus | None) -> None:
        self._file.execute("PRAGMA journal_mode=WAL")  # readers and a writer at once
        self._file.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last answers, and never the file
        self._file.execute("BEGIN IMMEDIATE")
        self._file.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT)")
        self._file.execute("CREATE TABLE IF NOT EXISTS hits (key TEXT PRIMARY KEY, value TEXT)")
        about = {"identity": identity, "corpus": json.dumps(asdict(corpus) if corpus else None)}
        self._file.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about.items())
        self._file.execute("COMMIT")

    def get(self, query: str, top_k: int) -> list[Hit] | None:
        """The recorded hits of a query; None where it was never recorded."""
        try:
            with self._lock:
                row = self._file.execute("SELECT value FROM hits WHERE key = ?", (_key(query, top_k),)).fetchone()
        except sqlite3.Error as error:
            raise RetrievalError(f"recording={self.path}: {error}") from None
        if row is None:
            return None
        # Mended, because recordings of earlier versions hold what their backends said.
        return [Hit(Passage(*map(mended, passage)), score) for passage, score in json.loads(row[0])]

    def put(self, answers: Sequence[tuple[str, int, list[Hit]]]) -> None:
        """Keep answers."""
        rows = [
            (_key(query, top_k), json.dumps([[astuple(hit.passage), hit.score] for hit in hits]))
            for query, top_k, hits in answers
        ]
        with self._lock:
            try:
                self._file.execute("BEGIN")
                self._file.executemany("INSERT OR REPLACE INTO hits VALUES (?, ?)", rows)
                self._file.execute("COMMIT")
            except sqlite3.Error as error:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise RetrievalError(f"recording={self.path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _key(query: str, top_k: int) -> str:
    return json.dumps([query, top_k])  # ASCII, because SQLite's text is UTF-8, which cannot hold a lone surrogate


class Replay:
    """The retriever of `mode="replay"`: answers from a recording alone; the server need not be there any more."""

    max_batch = 1
    concurrency = 1

    def __init__(self, path: str | Path) -> None:
        """Open a recording.

        Raises:
            RetrievalError: as `Recording`.
        """
        self._recording = Recording(path)
        self.corpus = Corpus(**json.loads(self._recording.about["corpus"]))
        self.settings: Mapping[str, Any] = json.loads(self._recording.about["identity"])[1]

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`.

        Raises:
            RetrievalError: a query that was never recorded.
        """
        return [self._find(query, top_k) for query in queries]

    def _find(self, query: str, top_k: int) -> list[Hit]:
        hits = self._recording.get(query, top_k)
        if hits is None:
            raise RetrievalError(
                f"{self._recording.path} has no answer to {query!r} with top_k {top_k}; run once with mode='record'"
            )
        return hits

    def close(self) -> None:
        """Close the file."""
        self._recording.close()
