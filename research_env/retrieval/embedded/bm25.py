"""The embedded index: BM25 by tantivy, on disk and memory-mapped, title and text searched."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tantivy

from research_env.errors import RetrievalError
from research_env.progress import track
from research_env.retrieval.embedded.place import TERMS, building
from research_env.retrieval.keywords import keywords
from research_env.retrieval.searchable import asked, indexed
from research_env.text import one_line
from research_env.types import Corpus, Hit, Passage, Pool

ANALYSERS = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
)  # fmt: skip
"""Languages whose endings are known."""
_NO_STOP_WORDS = ("arabic", "greek", "romanian", "tamil", "turkish")  # tantivy has no list for these
ABOUT_FILE = "about.json"
"""In an index's folder: its `Corpus` and settings."""

_LAYOUT = 4
"""Raise it whenever the same passages would be indexed in another way: pools are then indexed again."""
_WRITER_BYTES = 1 << 30  # at most; fewer, larger segments are searched faster
_LARGE = 250_000  # passages; common terms are left out only in a larger corpus
_COMMON = 0.4  # a term in more than this share of the passages is common, as in Lucene's QueryAutoStopWordAnalyzer
_TOKENIZER = "passage"  # our analyser's name within the index
_SMALL = 50_000  # passages; a pool of fewer builds in about a second

_log = logging.getLogger(__name__)


def made_with(analyser: str = "english") -> dict[str, Any]:
    """What an index is made with, besides its passages; tantivy's k1 and b are constants. Part of the cache key."""
    return {"engine": "tantivy", "bm25": {"k1": 1.2, "b": 0.75}, "analyser": analyser, "layout": _LAYOUT}


def _analyser(language: str) -> tantivy.TextAnalyzer:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.remove_long(64))
    builder = builder.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.ascii_fold())
    if language not in _NO_STOP_WORDS:
        builder = builder.filter(tantivy.Filter.stopword(language))
    return builder.filter(tantivy.Filter.stemmer(language)).build()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    # Stored JSON of (id, title, text) would be one field fewer, but three stay readable by any tantivy tool.
    builder.add_text_field("title", stored=True, tokenizer_name=_TOKENIZER, index_option="freq")
    builder.add_text_field("text", stored=True, tokenizer_name=_TOKENIZER, index_option="freq")
    # JSON of title and text as they came, for the passages that are searched in another form.
    builder.add_bytes_field("given", stored=True)
    return builder.build()


class Bm25Index:
    """A read-only BM25 index (k1 1.2, b 0.75). A passage's score is the sum of its title's and its text's score.

    Thread-safe; tantivy lets go of the interpreter lock, so threads search in parallel.
    """

    max_batch = 1  # in a batch the first query would wait for the last, and nothing would be gained
    concurrency = os.cpu_count() or 1

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`.

        Raises:
            RetrievalError: the folder holds no readable index.
        """
        self._folder = folder
        self._schema = _schema()
        try:
            about = json.loads((folder / ABOUT_FILE).read_text("utf-8"))
            self.corpus, made = Corpus(**about["corpus"]), about["settings"]
            self.settings: Mapping[str, Any] = {**made, "query": "keywords", "common": _COMMON}
            self._analyser = _analyser(made["analyser"])
            self._index = tantivy.Index.open(str(folder))
            self._index.register_tokenizer(_TOKENIZER, self._analyser)
            # The files never change, so tantivy needs no thread that watches them.
            self._index.config_reader("manual")
            self._index.reload()
            self._searcher = self._index.searcher()
        except BaseException as error:
            raise _damage(folder, error) from error
        # tantivy opens what is left of an index from which a segment was removed.
        self.is_current = made.get("layout") == _LAYOUT
        if not self.is_current:
            _log.warning("%s was made by an earlier version: it does not find Chinese, Japanese or Thai", folder)
        if self._searcher.num_docs != self.corpus.passages:
            reason = f"{self._searcher.num_docs} passages of {self.corpus.passages}"
            raise RetrievalError(f"{folder} is not a whole index ({reason}); delete it and run again")

    def passages(self) -> Iterator[Passage]:
        """Every passage, read back from the files, in no particular order.

        Raises:
            RetrievalError: a file is damaged.
        """
        for segment in range(self._searcher.num_segments):
            for number in range(self.corpus.passages):
                address = tantivy.DocAddress(segment, number)
                try:
                    yield self._passage(address)
                except BaseException as error:
                    # tantivy tells in no other way how many passages a segment has.
                    if isinstance(error, ValueError) and "Failed to lookup Doc" in str(error):
                        break
                    raise _damage(self._folder, error) from error

    def close(self) -> None:
        """There is nothing to release: the files are mapped, not held open."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`. A query of stop words only, or of nothing, finds nothing."""
        try:
            return [self._search(query, top_k) for query in queries]
        except BaseException as error:
            raise _damage(self._folder, error) from error

    def _search(self, text: str, top_k: int) -> list[Hit]:
        terms = self._terms(text)
        if not terms:
            return []
        # Built from terms and never parsed: whatever a policy writes is text, and not query syntax.
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, field, term, index_option="freq"))
            for term in terms
            for field in ("title", "text")
        ]
        found = self._searcher.search(tantivy.Query.boolean_query(clauses), limit=top_k, count=False).hits
        return [Hit(self._passage(address), score) for score, address in found]

    def _passage(self, address: tantivy.DocAddress) -> Passage:
        document = self._searcher.doc(address)
        ident, title, text = (str(document.get_first(name)) for name in ("id", "title", "text"))
        given = document.get_first("given")
        return Passage(ident, *(json.loads(given) if given else (title, text)))

    def _terms(self, text: str) -> list[str]:
        """Analysed terms of a query, each once, in order; the first 128: a question has about 10."""
        # tantivy takes UTF-8 only, and a lone surrogate has none.
        clean = text[:10_000].encode("utf-8", "replace").decode("utf-8")
        wanted = keywords(asked(clean) if self.is_current else clean, self.settings["analyser"])
        terms = list(dict.fromkeys(self._analyser.analyze(wanted)))[:128]
        if self.corpus.passages <= _LARGE:
            return terms
        # A term in half of a large corpus takes as long to add up as all others, and says as little as a stop word.
        most = _COMMON * self.corpus.passages
        return [term for term in terms if self._searcher.doc_freq("text", term) <= most] or terms


def _damage(folder: Path, error: BaseException) -> BaseException:
    """What to raise instead of `error`, which came while the index in `folder` was read."""
    # Damaged files make tantivy raise ValueError, or panic in Rust; pyo3's PanicException is a BaseException, and it
    # cannot be imported.
    if isinstance(error, (OSError, KeyError, TypeError, ValueError)) or type(error).__name__ == "PanicException":
        return RetrievalError(f"{folder} is not a readable index ({one_line(error)}); delete it and run again")
    return error


def open_or_build(cache: Path, pool: Pool) -> Bm25Index:
    """The index of a pool of passages, built at first use and kept under `cache`.

    The folder's name is a hash of the pool's fingerprint and `made_with()`. Safe with several processes at once: one
    builds, the rest wait. Never half-written: it is built beside its place and renamed into it. The pool's passages
    are read and counted only where the index has to be built.

    Raises:
        RetrievalError: the disk is full or `cache` cannot be written.
        ResearchError: whatever the pool raises of its own.
    """
    folder = index_folder(cache, pool.name, pool.fingerprint)
    if not folder.exists():
        with building(folder, f"the index of {pool.name!r}") as work:
            # Another process may have built it while this one waited for the lock.
            if not folder.exists():
                corpus = pool.corpus()
                build(work / TERMS, pool.passages(), corpus.passages, lambda: corpus)
                os.replace(work / TERMS, folder)
    return Bm25Index(folder)


def index_folder(cache: Path, name: str, fingerprint: str) -> Path:
    """Where the index of what has this fingerprint is kept under `cache`."""
    key = hashlib.sha256(json.dumps([fingerprint, made_with()], sort_keys=True).encode()).hexdigest()[:20]
    return cache / f"{name}-{key}"


def build(
    place: Path, passages: Iterable[Passage], num_passages: int | None, corpus: Callable[[], Corpus],
    analyser: str = "english",
) -> None:  # fmt: skip
    """Build an index in a new folder; its `about.json` comes last. The caller moves it to where it is opened.

    Args:
        place: The folder. What an earlier build has left there is deleted.
        passages: What goes into it.
        num_passages: How many they are, where it is known.
        corpus: What they are; called when all of them have been read.
        analyser: One of `ANALYSERS`.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    small = num_passages is not None and num_passages < _SMALL
    index = tantivy.Index(_schema(), path=str(place))
    index.register_tokenizer(_TOKENIZER, _analyser(analyser))
    # A small pool gets one thread and so one segment: its scores are the same every time. A large one gets as many
    # threads as there are cores, which is what 0 means.
    writer = index.writer(_WRITER_BYTES, num_threads=int(small))
    for p in track(passages, f"indexing {place.parent.stem}", num_passages):
        title, text = indexed(p.title), indexed(p.text)
        document = tantivy.Document(id=[p.id], title=[title], text=[text])
        if (title, text) != (p.title, p.text):
            document.add_bytes("given", json.dumps((p.title, p.text)).encode())
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    about = {"corpus": asdict(corpus()), "settings": made_with(analyser)}
    (place / ABOUT_FILE).write_text(json.dumps(about), "utf-8")
