"""Dense retrieval: an embedded index of vectors, searched by faiss. `vectors.py` makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval.embedded.encoder import BATCH, MISSING, recorded
from research_env.text import one_line
from research_env.types import Corpus, Hit, Passage

VECTORS_FILE = "vectors.f32"
"""Float32, row after row, one row a passage."""
PASSAGES_FILE = "passages.jsonl"
"""`[id, title, text]` a line, in the order of the vectors."""


class DenseIndex:
    """Exact inner-product search over unit vectors (faiss), memory-mapped; passages beside it on disk."""

    max_batch = BATCH
    concurrency = 1  # encoder and faiss use every core for one batch

    _nearest: Callable[..., tuple[np.ndarray, np.ndarray]]
    """Queries and k -> scores and rows `[queries, k]`."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Open the index in `folder`.

        Raises:
            RetrievalError: the folder holds no readable index.
            ConfigurationError: as `Encoder`.
        """
        faiss = import_faiss()
        try:
            about = json.loads((folder / "about.json").read_text("utf-8"))
            self.corpus = Corpus(**about["corpus"])
            # Until vectors were kept in a file of their own, faiss's format held them.
            old = folder / "vectors.faiss"
            if old.exists():
                self._nearest = faiss.read_index(str(old), faiss.IO_FLAG_MMAP).search
            else:
                shape = (self.corpus.passages, about["dims"])
                vectors = np.memmap(folder / VECTORS_FILE, np.float32, "r", shape=shape)
                self._nearest = partial(faiss.knn, xb=vectors, metric=faiss.METRIC_INNER_PRODUCT)
            self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
            self._passages = np.memmap(folder / PASSAGES_FILE, mode="r")
        except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise RetrievalError(
                f"{folder} is not a readable dense index ({one_line(error)}); delete it and build it again: "
                "python -m research_env index build --corpus FILE --to FOLDER --encoder MODEL"
            ) from None
        self._encoder = recorded(about, device)
        self.settings: Mapping[str, Any] = {
            "engine": "faiss", "encoder": about["encoder"], "prompts": asdict(self._encoder.prompts),
            "similarity": "cosine",
        }  # fmt: skip

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`; the score is the cosine. A blank query finds nothing."""
        # A blank text has a vector, too, but its neighbours mean nothing.
        asked = [i for i, query in enumerate(queries) if query.strip()]
        found: list[list[Hit]] = [[] for _ in queries]
        if asked and self.corpus.passages:
            scores, rows = self._nearest(self._encoder.queries([queries[i] for i in asked]), k=top_k)
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
        del self._nearest, self._passages, self._offsets


def import_faiss() -> Any:
    """Raises ConfigurationError where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        raise ConfigurationError(MISSING) from None
    return faiss
