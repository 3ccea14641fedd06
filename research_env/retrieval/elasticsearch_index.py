"""Make and check an Elasticsearch index: `python -m research_env index build` and `index verify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from research_env.errors import ConfigurationError, RetrievalError
from research_env.progress import progress, track
from research_env.retrieval import Corpus, Passage
from research_env.retrieval.corpora import ContentHash, CorpusReader
from research_env.retrieval.elasticsearch import connect, disk_full, failure

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from research_env.retrieval.dense import Encoder

_CHUNK = 1_000
_ENCODED = 64
_THREADS = 8  # two cores at the server take in twice as much as from one thread
_NOTE_EVERY = 50_000  # passages between notes of how far a build has come
_TIMEOUT = 120.0


@dataclass(frozen=True)
class IndexSettings:
    """What an index is created with; kept in it, so that another run can tell whether it has the same in mind."""

    k1: float = 1.2
    b: float = 0.75
    analyser: str = "english"
    shards: int = 1
    replicas: int = 0
    encoder: str | None = None

    def body(self, dims: int) -> dict[str, Any]:
        """Settings and mappings for Elasticsearch's create call."""
        field = {"type": "text", "analyzer": self.analyser, "similarity": "passage", "index_options": "freqs"}
        properties: dict[str, Any] = {"title": field, "text": field}
        if self.encoder:
            properties["vector"] = {"type": "dense_vector", "dims": dims, "index": True, "similarity": "cosine"}
        return {
            "settings": {
                "number_of_shards": self.shards, "number_of_replicas": 0, "refresh_interval": "-1",
                "similarity": {"passage": {"type": "BM25", "k1": self.k1, "b": self.b}},
            },
            "mappings": {
                "dynamic": "strict", "properties": properties, "_source": {"excludes": ["vector"]},
                "_meta": {"settings": asdict(self), "complete": False, "done": 0, "corpus": None},
            },
        }  # fmt: skip


def build(address: str, reader: CorpusReader, settings: IndexSettings, device: str = "cpu") -> Corpus:
    """Bring a corpus into an index, or go on where a build was stopped.

    Passages go out in chunks on eight connections, a few chunks ahead of the answers, so memory is bounded. The index
    notes now and then how many passages, in the corpus's order, are safely in it; a build that is started again passes
    over those. A passage's id is its id in the index: sent twice, it is there once.

    Raises:
        ConfigurationError: the index is there with other settings (the difference is in the message).
        RetrievalError: the cluster fails or refuses.
    """
    from elasticsearch import helpers

    client, index = connect(address, _TIMEOUT)
    client = client.options(max_retries=5, retry_on_timeout=True, retry_on_status=(429, 502, 503, 504))
    encoder = _encoder(settings, device)
    try:
        meta = _prepare(client, index, address, settings, encoder.dims if encoder else 0)
        if meta["complete"]:
            return _same(meta, reader, address)
        start, done = meta["done"], 0
        actions = _actions(reader, start, index, encoder)
        with progress(reader.name, reader.total) as step:
            results = helpers.parallel_bulk(
                client, actions, thread_count=_THREADS,
                chunk_size=_CHUNK, queue_size=_THREADS, max_chunk_bytes=20 << 20, raise_on_error=True,
            )  # fmt: skip
            for done, _ in enumerate(results, start + 1):  # in the order they were sent in
                if done % _CHUNK == 0:
                    step(done)
                if done % _NOTE_EVERY == 0:
                    client.indices.put_mapping(index=index, meta={**meta, "done": done})
        content = reader.content
        corpus = Corpus(reader.name, content.passages, content.hexdigest())
        client.indices.put_settings(
            index=index, settings={"refresh_interval": "1s", "number_of_replicas": settings.replicas}
        )
        client.indices.refresh(index=index)
        counted = client.count(index=index)["count"]
        if counted != corpus.passages:
            raise RetrievalError(
                f"{address} holds {counted:,} passages, the corpus has {corpus.passages:,}: the index was begun with "
                "another corpus; delete it and build it again"
            )
        client.indices.put_mapping(
            index=index, meta={**meta, "complete": True, "done": counted, "corpus": asdict(corpus)}
        )
        return corpus
    except helpers.BulkIndexError as error:
        first = next(iter(error.errors[0].values()))
        if "read-only-allow-delete" in str(first):
            raise disk_full(address) from None
        reason = f"passage {first.get('_id')!r}: status {first.get('status')}, {str(first.get('error'))[:300]}"
        raise RetrievalError(f"{address} did not take {reason}; run this again to go on") from None
    except Exception as error:
        raise failure(error, address) from error
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
        about = _about(client, index)
        content = ContentHash()
        for passage in track(_scan(client, index), f"reading {index}", client.count(index=index)["count"]):
            content.add(passage)
    except Exception as error:
        raise failure(error, address) from error
    finally:
        client.close()
    recorded = about.get("corpus") or {}
    found = Corpus(recorded.get("name", index), content.passages, content.hexdigest())
    problems = [] if about.get("complete") else ["its build was not finished"]
    expected = [("its own record", recorded.get("passages"), recorded.get("hash"))] if recorded else []
    if reader is not None:
        for _ in reader:
            pass
        expected.append((f"corpus {reader.name}", reader.content.passages, reader.content.hexdigest()))
    for what, passages, digest in expected:
        if passages != found.passages:
            problems.append(f"{found.passages:,} passages, but {what} has {passages:,}")
        elif digest != found.hash:
            problems.append(f"content hash {found.hash}, but {what} has {digest}")
    return found, problems


def _prepare(client: Elasticsearch, index: str, address: str, settings: IndexSettings, dims: int) -> dict[str, Any]:
    """Create the index or check that it is the one that is wanted; its `_meta`."""
    wanted = settings.body(dims)
    if not client.indices.exists(index=index):
        client.indices.create(index=index, **wanted)
        meta: dict[str, Any] = wanted["mappings"]["_meta"]
        return meta
    found = client.indices.get(index=index)[index]
    meta = found["mappings"].get("_meta", {})
    differences = [
        f"{name}: {before!r} there, {value!r} wanted"
        for name, value in asdict(settings).items()
        if (before := meta.get("settings", {}).get(name)) != value
    ]
    for name, field in wanted["mappings"]["properties"].items():
        there = found["mappings"].get("properties", {}).get(name)
        for key, value in field.items():
            has = (there or {}).get(key, True if key == "index" else None)
            if has != value:
                differences.append(f"field {name}, {key}: {has!r} there, {value!r} wanted")
    if differences:
        raise ConfigurationError(
            f"{address} was made otherwise: {'; '.join(differences)}; give another index name, or delete that index"
        )
    return meta


def _same(meta: dict[str, Any], reader: CorpusReader, address: str) -> Corpus:
    """The index is whole: read the corpus once more to tell whether it is of it."""
    for _ in reader:
        pass
    corpus = Corpus(**meta["corpus"])
    if reader.content.hexdigest() != corpus.hash:
        raise ConfigurationError(
            f"{address} is whole, but of another corpus ({corpus.name}, {corpus.passages:,} passages; this one has "
            f"{reader.content.passages:,}); give another index name, or delete that index"
        )
    return corpus


def _actions(reader: CorpusReader, start: int, index: str, encoder: Encoder | None) -> Iterator[dict[str, Any]]:
    """Bulk actions from passage number `start` on; the ones before are read for the content hash alone."""
    stream = islice(reader, start, None)
    while passages := list(islice(stream, _ENCODED)):
        vectors = encoder.passages(passages).tolist() if encoder else [None] * len(passages)
        for p, vector in zip(passages, vectors, strict=True):
            action = {"_index": index, "_id": p.id, "title": p.title, "text": p.text}
            yield {**action, "vector": vector} if encoder else action


def _scan(client: Elasticsearch, index: str) -> Iterator[Passage]:
    from elasticsearch import helpers

    client.indices.refresh(index=index)
    for hit in helpers.scan(client, index=index, size=_CHUNK, query={"_source": ["title", "text"]}):
        yield Passage(hit["_id"], hit["_source"]["title"], hit["_source"]["text"])


def _about(client: Elasticsearch, index: str) -> dict[str, Any]:
    about: dict[str, Any] = client.indices.get_mapping(index=index)[index]["mappings"].get("_meta", {})
    return about


def _encoder(settings: IndexSettings, device: str) -> Encoder | None:
    if not settings.encoder:
        return None
    from research_env.retrieval.dense import Encoder

    return Encoder(settings.encoder, device)
