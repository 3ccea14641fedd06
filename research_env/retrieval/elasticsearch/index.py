"""Make and check an Elasticsearch index: `python -m research_env index build` and `index verify`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from research_env.corpora.content import ContentHash, mismatches
from research_env.corpora.reader import CorpusReader
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.progress import progress, track
from research_env.retrieval.elasticsearch.client import connect, disk_full, failure
from research_env.retrieval.elasticsearch.search import FIELDS, to_passage
from research_env.retrieval.embedded.encoder import Encoder
from research_env.retrieval.searchable import indexed
from research_env.types import Corpus, Passage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

LAYOUT = 2
"""Kept in an index. Raise it whenever the same passages would be indexed in another way."""
_CHUNK = 1_000
_THREADS = 8  # a server of two cores indexes twice as fast as from one thread
_NOTE_EVERY = 50_000  # passages between notes of how far a build has come
_TIMEOUT = 120.0


@dataclass(frozen=True)
class IndexSettings:
    """What an index is created with; kept in it, so that another run can tell whether it wants the same."""

    k1: float = 1.2
    b: float = 0.75
    analyser: str = "english"
    shards: int = 1
    replicas: int = 0
    encoder: str | None = None
    prompts: dict[str, str] | None = None
    """Of the encoder: `{"query", "passage"}`."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a value that Elasticsearch does not allow."""
        wrong = {"k1": self.k1 < 0, "b": not 0 <= self.b <= 1, "shards": self.shards < 1, "replicas": self.replicas < 0}
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise ConfigurationError(f"--{name} {getattr(self, name)}: Elasticsearch does not allow this value")

    def body(self, dims: int) -> dict[str, Any]:
        """Settings and mappings for Elasticsearch's create call."""
        field = {"type": "text", "analyzer": self.analyser, "similarity": "passage", "index_options": "freqs"}
        # `given` has title and text as they came, for the passages that are searched in another form.
        properties: dict[str, Any] = {"title": field, "text": field, "given": {"type": "object", "enabled": False}}
        if self.encoder:
            properties["vector"] = {"type": "dense_vector", "dims": dims, "index": True, "similarity": "cosine"}
        return {
            "settings": {
                "number_of_shards": self.shards, "number_of_replicas": 0, "refresh_interval": "-1",
                "similarity": {"passage": {"type": "BM25", "k1": self.k1, "b": self.b}},
            },
            "mappings": {
                "dynamic": "strict", "properties": properties, "_source": {"excludes": ["vector"]},
                "_meta": {
                    "settings": asdict(self), "layout": LAYOUT, "complete": False, "done": 0, "hash": None,
                    "corpus": None,
                },
            },
        }  # fmt: skip


@dataclass(frozen=True)
class _Chunk:
    """Bulk actions, and where in the corpus they end: number of passages up to there and their content hash."""

    actions: list[dict[str, Any]]
    done: int
    digest: str


def build(address: str, reader: CorpusReader, settings: IndexSettings, encoder: Encoder | None = None) -> Corpus:
    """Index a corpus, or resume a build that was stopped.

    Passages go out in chunks on eight connections, a few chunks ahead of the answers, so memory is bounded. Now and
    then the index notes how many passages, in the corpus's order, are safely in it, and their content hash; a resumed
    build leaves those out. A passage's id is its id in the index, so a passage that is sent twice is there once.

    Raises:
        ConfigurationError: the index is there with other settings, or was begun with another corpus.
        RetrievalError: the cluster fails or refuses.
    """
    client, index = connect(address, _TIMEOUT)
    client = client.options(max_retries=5, retry_on_timeout=True, retry_on_status=(429, 502, 503, 504))
    if encoder:
        settings = replace(settings, encoder=encoder.name, prompts=asdict(encoder.prompts))
    try:
        meta = _prepare(client, index, address, settings, encoder.dims if encoder else 0)
        if meta["complete"]:
            return _same(meta, reader, client.count(index=index)["count"], address)
        passages = _resumed(reader, meta, address)
        chunks = _chunks(passages, reader, index, encoder)
        noted = meta["done"]
        # Encoding takes so long that a pass over the file, to tell how much is left, does not count.
        total = reader.again().read().passages if encoder and reader.total is None else reader.total
        with progress(reader.name, total, noted) as step:
            for done, digest in _sent(client, chunks, ahead=0 if encoder else 2 * _THREADS):
                step(done)
                if done - noted >= (_CHUNK if encoder else _NOTE_EVERY):
                    noted = done
                    client.indices.put_mapping(index=index, meta={**meta, "done": done, "hash": digest})
        corpus = reader.corpus()
        # Set only when everything is in: an index that refreshes and copies itself during the build takes longer.
        client.indices.put_settings(
            index=index, settings={"refresh_interval": "1s", "number_of_replicas": settings.replicas}
        )
        client.indices.refresh(index=index)
        counted = client.count(index=index)["count"]
        if counted != corpus.passages:
            raise RetrievalError(
                f"{address} holds {counted:,} passages, the corpus has {corpus.passages:,}: something else wrote to "
                "the index; delete it and build it again"
            )
        # This is the last step, because a search refuses an index that is not complete.
        client.indices.put_mapping(
            index=index, meta={**meta, "complete": True, "done": counted, "corpus": asdict(corpus)}
        )
        return corpus
    except Exception as error:
        raise _refusal(error, address) from error
    finally:
        client.close()


def verify(address: str, reader: CorpusReader | None) -> tuple[Corpus, list[str]]:
    """Compare an index with what it says about itself, and with a corpus.

    Every passage is read back and hashed.

    Returns:
        What is in the index, and what is wrong, a line each.
    """
    client, index = connect(address, _TIMEOUT)
    try:
        about = _own(client.indices.get(index=index), index, address)["mappings"].get("_meta", {})
        if "settings" not in about:
            raise ConfigurationError(f"{address} is not an index of passages")
        content = ContentHash()
        for passage in track(_scan(client, index), f"reading {index}", client.count(index=index)["count"]):
            content.add(passage)
    except Exception as error:
        raise _refusal(error, address) from error
    finally:
        client.close()
    recorded = about.get("corpus") or {}
    found = Corpus(recorded.get("name", index), content.passages, content.hexdigest())
    if not about["complete"]:
        return found, ["its build was not finished; run index build again to resume it"]
    expected = [("its own record", Corpus(**recorded))] if recorded else []
    if reader is not None:
        corpus = reader.read()
        expected.append((f"corpus {corpus.name}", corpus))
    problems = mismatches(found, expected)
    if problems:
        problems.append("delete that index and build it again")
    return found, problems


def _prepare(client: Elasticsearch, index: str, address: str, settings: IndexSettings, dims: int) -> dict[str, Any]:
    """Create the index, or check that the one that is there is the wanted one.

    Returns:
        The index's `_meta`.
    """
    wanted = settings.body(dims)
    if not client.indices.exists(index=index):
        client.indices.create(index=index, **wanted)
        meta: dict[str, Any] = wanted["mappings"]["_meta"]
        return meta
    found = _own(client.indices.get(index=index), index, address)
    meta = found["mappings"].get("_meta", {})
    if "settings" in meta and meta.get("layout") != LAYOUT:
        raise ConfigurationError(
            f"{address} was made by an earlier version; it can be searched as before, but passages in scripts without "
            "spaces (Chinese, Japanese, Thai) are not found; delete that index, or give another name"
        )
    differences = [
        f"{name}: {before!r} there, {value!r} wanted"
        for name, value in asdict(settings).items()
        if (before := meta.get("settings", {}).get(name)) != value
    ]
    # `_meta` is only what a build has noted; somebody may have created the fields differently.
    for name, field in wanted["mappings"]["properties"].items():
        there = found["mappings"].get("properties", {}).get(name)
        for key, value in field.items():
            has = (there or {}).get(key, True if key == "index" else None)
            if has != value:
                differences.append(f"field {name}, {key}: {has!r} there, {value!r} wanted")
    if differences:
        raise ConfigurationError(
            f"{address} has other settings: {'; '.join(differences)}; give another index name, or delete that index"
        )
    return meta


def _same(meta: dict[str, Any], reader: CorpusReader, counted: int, address: str) -> Corpus:
    """Read the corpus, to tell whether a complete index was made from it."""
    read, corpus = reader.read(), Corpus(**meta["corpus"])
    if counted != corpus.passages:
        raise RetrievalError(
            f"{address} holds {counted:,} passages of {corpus.passages:,}: something has changed it since then; "
            "delete that index and build it again"
        )
    if read.hash != corpus.hash:
        raise ConfigurationError(
            f"{address} is of another corpus ({corpus.name}, {corpus.passages:,} passages; this one "
            f"has {read.passages:,}); give another index name, or delete that index"
        )
    return corpus


def _resumed(reader: CorpusReader, meta: dict[str, Any], address: str) -> Iterator[Passage]:
    """The passages that are not in the index yet, after a check that those before them have not changed."""
    passages = iter(reader)
    for _ in islice(passages, meta["done"]):
        pass
    read = reader.corpus()
    if meta["done"] and (read.passages, read.hash) != (meta["done"], meta["hash"]):
        raise ConfigurationError(
            f"{address} was begun with another corpus: its first {meta['done']:,} passages were others; delete that "
            "index, or give another name"
        )
    return passages


def _chunks(passages: Iterator[Passage], reader: CorpusReader, index: str, encoder: Encoder | None) -> Iterator[_Chunk]:
    while some := list(islice(passages, _CHUNK)):
        actions = [{"_index": index, "_id": p.id, **_source(p)} for p in some]
        if encoder:
            for action, vector in zip(actions, encoder.passages(some).tolist(), strict=True):
                action["vector"] = vector
        yield _Chunk(actions, reader.content.passages, reader.content.hexdigest())


def _source(passage: Passage) -> dict[str, Any]:
    searched = {"title": indexed(passage.title), "text": indexed(passage.text)}
    given = [passage.title, passage.text]
    return searched if list(searched.values()) == given else {**searched, "given": given}


def _sent(client: Elasticsearch, chunks: Iterator[_Chunk], ahead: int) -> Iterator[tuple[int, str]]:
    """Send chunks, and yield after each, in their order, how many passages are in the index by then, and their hash.

    The first failure, or Ctrl-C, ends it: chunks that have not been sent stay unsent.
    """
    from elasticsearch import helpers

    def send(chunk: _Chunk) -> tuple[int, str]:
        # Of a chunk, only the passages that the cluster had no room for (status 429) are sent again.
        retries: dict[str, Any] = {"max_retries": 8, "initial_backoff": 0.5, "max_backoff": 30}
        for _ in helpers.streaming_bulk(client, chunk.actions, chunk_size=_CHUNK, max_chunk_bytes=20 << 20, **retries):
            pass
        return chunk.done, chunk.digest

    with ThreadPoolExecutor(_THREADS) as threads:
        sending: deque[Future[tuple[int, str]]] = deque()
        try:
            for chunk in chunks:
                sending.append(threads.submit(send, chunk))
                # With an encoder nothing is ahead: each chunk is noted before the next one is encoded.
                # In order, so that "done" is a prefix of the corpus even where a later chunk was answered first.
                if len(sending) > ahead:
                    yield sending.popleft().result()
            while sending:
                yield sending.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _refusal(error: Exception, address: str) -> Exception:
    """What to raise in place of an error of the client or its helpers."""
    from elasticsearch import helpers

    if isinstance(error, helpers.ScanError):
        return RetrievalUnavailable(f"{address} could not be read to the end ({error}); run this again")
    if not isinstance(error, helpers.BulkIndexError):
        return failure(error, address)
    first = next(iter(error.errors[0].values()))
    if "read-only-allow-delete" in str(first):
        return disk_full(address)
    reason = f"passage {first.get('_id')!r}: status {first.get('status')}, {str(first.get('error'))[:300]}"
    fix = "fix or leave out that passage" if first.get("status") == 400 else "run this again to go on"
    return RetrievalError(f"{address} did not take {reason}; {fix}")


def _scan(client: Elasticsearch, index: str) -> Iterator[Passage]:
    from elasticsearch import helpers

    # What has been written since the last refresh is invisible to a scan.
    client.indices.refresh(index=index)
    for hit in helpers.scan(client, index=index, size=_CHUNK, query={"_source": FIELDS}):
        yield to_passage(hit)


def _own(found: Any, index: str, address: str) -> dict[str, Any]:
    """The description of an index. An alias has none of its own: Elasticsearch answers with those of its indexes."""
    if index not in found:
        raise ConfigurationError(f"{address} is an alias; name the index itself: {', '.join(found)}")
    description: dict[str, Any] = found[index]
    return description
