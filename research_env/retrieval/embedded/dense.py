"""Dense retrieval: a sentence-transformers encoder, and an embedded index of vectors by faiss."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from research_env.corpora.formats import contents
from research_env.corpora.reader import CorpusReader
from research_env.errors import ConfigurationError, RetrievalError
from research_env.progress import track
from research_env.retrieval.embedded.bm25 import check_content
from research_env.text import one_line
from research_env.types import Corpus, Hit, Passage

_BATCH = 64
_MISSING = "dense retrieval needs sentence-transformers and faiss: pip install 'research-gym[dense]'"


def prefixes(model: str) -> tuple[str, str]:
    """What a model wants before each query and each passage: E5 was trained with "query: " and "passage: "."""
    # The last part of a Hub id or a path, but for a snapshot in the Hub's cache: models--NAME/snapshots/REVISION.
    parts = [part for part in re.split(r"/|--", model.lower()) if not re.fullmatch(r"|snapshots|[0-9a-f]{40}", part)]
    name = parts[-1] if parts else ""
    if re.search(r"(^|[-_])e5", name) and "instruct" not in name:
        return "query: ", "passage: "
    if name.startswith("bge-") and "-en" in name:
        return "Represent this sentence for searching relevant passages: ", ""
    return "", ""


class Encoder:
    """Texts -> unit vectors. Thread-safe: one batch of texts at a time."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        """Load a sentence-transformers model, or any transformers encoder, from a folder or the Hub.

        Raises:
            ConfigurationError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigurationError(_MISSING) from None
        self.name = model
        self.query_prefix, self.passage_prefix = prefixes(model)
        try:
            self._model = SentenceTransformer(model, device=device)
        # torch raises AssertionError for a device that it was not built for.
        except (AssertionError, OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"encoder {model!r} cannot be loaded: {str(error).splitlines()[0]}") from None
        self.dims = int(self._model.get_embedding_dimension() or 0)
        self._lock = threading.Lock()

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """`[N, dims]` float32, of length 1."""
        return self._encode([self.query_prefix + text for text in texts])

    def passages(self, passages: Sequence[Passage]) -> np.ndarray:
        """`[N, dims]` float32, of length 1."""
        return self._encode([self.passage_prefix + contents(passage) for passage in passages])

    def _encode(self, texts: list[str]) -> np.ndarray:
        # Cut, because the tokenizer would first split all of a text of megabytes; a tokenizer takes UTF-8 only.
        clean = [text[:10_000].encode("utf-8", "replace").decode("utf-8") for text in texts]
        with self._lock:
            vectors = self._model.encode(clean, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


class DenseIndex:
    """Exact inner-product search over unit vectors (faiss), memory-mapped; passages beside it on disk."""

    max_batch = _BATCH
    concurrency = 1  # encoder and faiss use every core for one batch

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Open the index in `folder`.

        Raises:
            RetrievalError: the folder holds no readable index.
            ConfigurationError: as `Encoder`.
        """
        faiss = _faiss()
        try:
            about = json.loads((folder / "about.json").read_text("utf-8"))
            self.corpus = Corpus(**about["corpus"])
            self._vectors = faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP)
            self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
            self._passages = np.memmap(folder / "passages.jsonl", mode="r")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise RetrievalError(
                f"{folder} is not a readable dense index ({one_line(error)}); build it: "
                "python -m research_env index build --corpus FILE --to FOLDER --encoder MODEL"
            ) from None
        self._encoder = Encoder(about["encoder"], device)
        self.settings: Mapping[str, Any] = {"engine": "faiss", "encoder": about["encoder"], "similarity": "cosine"}

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`; the score is the cosine. A blank query finds nothing."""
        # A blank text has a vector, too, but its neighbours mean nothing.
        asked = [i for i, query in enumerate(queries) if query.strip()]
        found: list[list[Hit]] = [[] for _ in queries]
        if asked and self.corpus.passages:
            scores, rows = self._vectors.search(self._encoder.queries([queries[i] for i in asked]), top_k)
            for i, line, ids in zip(asked, scores, rows, strict=True):
                # faiss fills up with row -1 where fewer than `top_k` passages exist.
                found[i] = [Hit(self._passage(row), float(s)) for s, row in zip(line, ids, strict=True) if row >= 0]
        return found

    def _passage(self, row: int) -> Passage:
        # Offset number N is where passage N begins; the last one is where the file ends.
        start, end = self._offsets[row : row + 2]
        return Passage(*json.loads(self._passages[start:end].tobytes()))

    def close(self) -> None:
        """Release the mapped files."""
        del self._vectors, self._passages, self._offsets


def build_dense(folder: Path, reader: CorpusReader, model: str, device: str = "cpu") -> None:
    """Encode every passage into `folder/dense`, which appears only once it is whole. The caller holds the lock.

    Raises:
        ConfigurationError: as `Encoder`; or the folder holds another corpus, or the vectors of another encoder.
        RetrievalError: the disk is full.
    """
    faiss = _faiss()
    place = folder / "dense"
    if place.exists():
        there = json.loads((place / "about.json").read_text("utf-8"))["encoder"]
        if there != model:
            raise ConfigurationError(
                f"{place} has vectors by {there!r}, not {model!r}; delete it, or give another folder"
            )
        return
    encoder = Encoder(model, device)
    index = faiss.IndexFlatIP(encoder.dims)
    for leftover in folder.glob("dense.tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix="dense.tmp", dir=folder))
    try:
        offsets = [0]
        with (partial / "passages.jsonl").open("wb") as file:
            stream = track(reader, f"encoding {folder.name}", reader.total)
            while batch := list(islice(stream, _BATCH)):
                index.add(encoder.passages(batch))
                for p in batch:
                    offsets.append(offsets[-1] + file.write(json.dumps([p.id, p.title, p.text]).encode() + b"\n"))
        # Vectors and terms of one folder must be of the same passages, or `hybrid` would fuse two corpora.
        corpus = check_content(folder, reader.corpus())
        np.save(partial / "offsets.npy", np.array(offsets, np.int64))
        try:
            faiss.write_index(index, str(partial / "vectors.faiss"))
        except RuntimeError as error:
            raise RetrievalError(f"{place} could not be written ({one_line(error)[:200]})") from None
        (partial / "about.json").write_text(json.dumps({"corpus": asdict(corpus), "encoder": model}), "utf-8")
        partial.rename(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    return faiss
