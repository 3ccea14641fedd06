"""Encode a corpus, chunk by chunk: a build that was stopped goes on after the last chunk that it finished."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from research_env.corpora.reader import CorpusReader
from research_env.errors import RetrievalError
from research_env.files import replace
from research_env.progress import note, progress
from research_env.retrieval.embedded.dense import PASSAGES_FILE, VECTORS_FILE, import_faiss
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions
from research_env.types import Corpus

_CHUNK = 1_024  # passages; seconds on a GPU, a minute or less on a CPU
_PROGRESS = "progress.json"


def load(options: EncoderOptions) -> Encoder:
    """The encoder that makes vectors; faiss, which searches them, must be there as well.

    Raises:
        ConfigurationError: as `Encoder`, or faiss is not installed.
    """
    import_faiss()
    return Encoder(options)


def identity(encoder: Encoder) -> dict[str, Any]:
    """What vectors depend on besides the passages; kept beside them."""
    return {"encoder": encoder.name, "prompts": asdict(encoder.prompts), "dims": encoder.dims}


def encode_corpus(place: Path, reader: CorpusReader, corpus: Corpus, encoder: Encoder) -> None:
    """Encode every passage into the folder `place`; its `about.json` comes last.

    `progress.json` is replaced after each chunk, when its vectors and passages are on the disk: whatever comes after
    the sizes in it is cut off when the build goes on.

    Args:
        place: The folder. Finished chunks are kept if they are of this encoder and of these passages.
        reader: Reads the passages.
        corpus: What they are, as another pass has found.
        encoder: Makes the vectors.

    Raises:
        RetrievalError: the encoder fails; or the corpus changed while it was read.
        OSError: the disk is full.
    """
    wanted = identity(encoder)
    there = _there(place)
    if there["done"] and there["identity"] != wanted:
        note(f"{place} has vectors by another encoder or with other prompts: encoding begins anew")
        there = _nothing()
    passages = iter(reader)
    for _ in islice(passages, there["done"]):
        pass
    if reader.corpus().hash != there["hash"] and there["done"]:
        note(f"{place} has vectors of other passages: encoding begins anew")
        there, reader = _nothing(), reader.again()
        passages = iter(reader)
    if not there["done"]:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    else:
        note(f"{there['done']:,} of {corpus.passages:,} passages have been encoded before")
    row = 4 * encoder.dims  # bytes
    with (
        _at(place / VECTORS_FILE, there["done"] * row) as vectors,
        _at(place / PASSAGES_FILE, there["bytes"]) as texts,
        progress(f"encoding {corpus.name}", corpus.passages, there["done"]) as step,
    ):
        while chunk := list(islice(passages, _CHUNK)):
            vectors.write(encoder.passages(chunk).tobytes())
            texts.writelines(json.dumps([p.id, p.title, p.text]).encode() + b"\n" for p in chunk)
            for file in (vectors, texts):
                file.flush()
                os.fsync(file.fileno())
            done, digest = reader.content.passages, reader.content.hexdigest()
            now = {"identity": wanted, "done": done, "hash": digest, "bytes": texts.tell()}
            replace(place / _PROGRESS, json.dumps(now).encode())
            step(done)
    if reader.corpus().hash != corpus.hash:
        raise RetrievalError(f"corpus {corpus.name} was changed while it was read; run this again")
    with (place / PASSAGES_FILE).open("rb") as lines:
        sizes = np.fromiter((len(line) for line in lines), np.int64, corpus.passages)
    np.save(place / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]))
    (place / "about.json").write_text(json.dumps({"corpus": asdict(corpus), **wanted}), "utf-8")


def _there(place: Path) -> dict[str, Any]:
    """What `progress.json` says."""
    try:
        found: dict[str, Any] = json.loads((place / _PROGRESS).read_bytes())
    except (OSError, ValueError):
        return _nothing()
    needed = {PASSAGES_FILE: found["bytes"], VECTORS_FILE: found["done"] * 4 * found["identity"]["dims"]}
    whole = all((place / name).is_file() and (place / name).stat().st_size >= size for name, size in needed.items())
    return found if whole else _nothing()


def _nothing() -> dict[str, Any]:
    return {"identity": None, "done": 0, "hash": None, "bytes": 0}


def _at(path: Path, size: int) -> Any:
    """A file that is cut to `size` bytes, to be written from there on."""
    file = path.open("ab")
    file.truncate(size)
    file.seek(size)
    return file
