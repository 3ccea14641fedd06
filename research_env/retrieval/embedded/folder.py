"""Embedded indexes from files: BM25, dense, or both, in one folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from research_env import names
from research_env.corpora.reader import CorpusReader, open_file
from research_env.errors import ConfigurationError, RetrievalError
from research_env.files import home
from research_env.progress import note, track
from research_env.retrieval.base import Retriever
from research_env.retrieval.embedded.bm25 import ABOUT_FILE, ANALYSERS, Bm25Index, build, index_folder, made_with
from research_env.retrieval.embedded.dense import DenseIndex
from research_env.retrieval.embedded.encoder import EncoderOptions
from research_env.retrieval.embedded.place import TERMS, VECTORS, building
from research_env.retrieval.embedded.vectors import encode_corpus, load
from research_env.retrieval.fusion import Hybrid
from research_env.retrieval.options import check_options
from research_env.text import one_line
from research_env.types import Corpus

DENSE = "dense"
"""In an index's folder: its vectors, where it has any."""


def about(folder: Path) -> dict[str, Any]:
    """What an index, or its vectors, say about themselves.

    Raises:
        RetrievalError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / ABOUT_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RetrievalError(f"{folder} is not a readable index ({one_line(error)}); delete it") from None
    return found


class EmbeddedOptions(BaseModel):
    """Options of a folder or a file."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    rank: Literal["bm25", "dense", "hybrid"] = "bm25"
    """How passages are ranked: by terms, by vectors (the folder must have been built with an encoder), or by both."""
    device: str = "cpu"
    """Where queries are encoded, e.g. `"cuda"`."""


def open_embedded(address: str, options: dict[str, Any]) -> Retriever:
    """The index in a folder, or of a file, which is indexed at first use.

    Raises:
        ConfigurationError: the path leads nowhere, or an option cannot work.
        RetrievalError: the folder holds no readable index.
    """
    chosen: EmbeddedOptions = check_options(EmbeddedOptions, options, f"corpus {address!r}")
    folder = Path(address).expanduser()
    # `is_file` asks the system, which may refuse: a name of 300 characters is an error, and not an absent file.
    try:
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except OSError as error:
        raise ConfigurationError(f"corpus {address!r}: {error.strerror or error}") from None
    if is_file:
        if chosen.rank != "bm25":
            raise ConfigurationError(
                f"corpus {address!r}: rank={chosen.rank!r} needs vectors; build a folder that has them: "
                f"python -m research_env index build --corpus {address} --to FOLDER --encoder MODEL"
            )
        return _index_of(folder)
    if not is_folder:
        raise ConfigurationError(
            f"corpus {address!r}: there is no such file or folder; give 'pooled', 'none', a path, "
            "elasticsearch://host:9200/index or http://host:8000"
        )
    if not (folder / ABOUT_FILE).exists():
        raise ConfigurationError(
            f"corpus {address!r}: that folder holds no index; build one: "
            "python -m research_env index build --corpus FILE --to FOLDER"
        )
    if chosen.rank == "bm25":
        return Bm25Index(folder)
    if not (folder / DENSE / ABOUT_FILE).exists():
        raise ConfigurationError(
            f"corpus {address!r}: rank={chosen.rank!r} needs vectors, and this index was built without --encoder; add "
            f"them: python -m research_env index build --corpus FILE --to {address} --encoder MODEL"
        )
    dense = DenseIndex(folder / DENSE, chosen.device)
    return dense if chosen.rank == "dense" else Hybrid(Bm25Index(folder), dense)


def _index_of(file: Path) -> Bm25Index:
    """The index of a file, kept under `$RESEARCH_HOME` until the file changes."""
    path = file.resolve()
    # Path, size and time stand for the content: hashing a file of 14 GB at every start would take too long.
    fingerprint = json.dumps([str(path), path.stat().st_size, path.stat().st_mtime_ns])
    folder = index_folder(home() / "indexes", file.name.split(".")[0], fingerprint)
    if not folder.exists():
        build_folder(open_file(file), folder)
    return Bm25Index(folder)


def build_folder(
    reader: CorpusReader,
    folder: Path,
    *,
    analyser: str = "english",
    encoder: EncoderOptions | None = None,
) -> tuple[Corpus, int]:
    """Build the index of a corpus in `folder`, or go on with a build that was stopped.

    Args:
        reader: Reads its passages.
        folder: Where; an index that is whole already is left as it is.
        analyser: Language of the passages, one of `ANALYSERS`.
        encoder: Vectors are made too.

    Returns:
        What was indexed, and the number of bad rows that were left out.

    Raises:
        ConfigurationError, DataInvalid: the corpus cannot be read, or the folder holds another index or other files.
        RetrievalError: the disk is full or the folder cannot be written; the encoder fails.
    """
    if analyser not in ANALYSERS:
        hint = names.did_you_mean(analyser, ANALYSERS)
        raise ConfigurationError(f"--analyser={analyser!r} is unknown; known: {', '.join(ANALYSERS)}{hint}")
    folder = folder.expanduser()
    _check_folder(folder)
    folder = folder.resolve()  # the index is built beside the folder itself, not beside a link to it
    # Loaded first: a model that does not load must be noticed before hours of work.
    model = None if encoder is None or _has_vectors(folder, encoder) else load(encoder)
    with building(folder, f"the index of {reader.name!r}") as work:
        done = folder if (folder / ABOUT_FILE).exists() else work / TERMS
        corpus = _kept(done, reader, analyser, is_final=done == folder)
        if corpus is None:
            reader = reader.again()  # the count and the hash are those of this pass
            build(done, reader, reader.total, reader.corpus, analyser)
            corpus = reader.corpus()
        # Another process may have made the vectors while this one waited.
        vectors_wanted = model is not None and not (folder / DENSE).exists()
        if model and vectors_wanted:
            encode_corpus(work / VECTORS, reader.again(), corpus, model)
        if done != folder:
            os.replace(done, folder)
        if vectors_wanted:
            os.replace(work / VECTORS, folder / DENSE)
    return Bm25Index(folder).corpus, reader.skipped


def _check_folder(folder: Path) -> None:
    """Raises ConfigurationError where the index cannot be put: it replaces an empty folder at most."""
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"--to {folder}: that is a file; give a folder")
    if folder.exists() and not (folder / ABOUT_FILE).exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} holds something that is not an index; give another folder")
    if os.path.ismount(folder):
        raise ConfigurationError(f"--to {folder}: that is where a disk is mounted; give a folder in it")


def _has_vectors(folder: Path, encoder: EncoderOptions) -> bool:
    """Whether the index in `folder` has vectors; raises ConfigurationError where they are by another encoder."""
    place = folder / DENSE
    if not place.exists():
        return False
    there = about(place)
    kept = there.get("prompts") or {}
    wanted = {"query": encoder.query_prompt, "passage": encoder.passage_prompt}
    if there["encoder"] != encoder.model:
        difference = f"by {there['encoder']!r}, not {encoder.model!r}"
    elif any(text is not None and text != kept.get(name) for name, text in wanted.items()):
        difference = f"with the prompts {kept}, and not with those that were given"
    else:
        return True
    raise ConfigurationError(f"{place} has vectors {difference}; delete it, or give another folder")


def _kept(done: Path, reader: CorpusReader, analyser: str, is_final: bool) -> Corpus | None:
    """What the BM25 index in `done` was made from, where it is whole and of this corpus.

    Raises:
        ConfigurationError: it is another index, and one that somebody may be using.
    """
    if not (done / ABOUT_FILE).exists():
        return None
    there = about(done)
    corpus, made = Corpus(**there["corpus"]), there["settings"]
    difference = ""
    if made.get("layout") != made_with()["layout"]:
        difference = "was made by an earlier version"
    elif made["analyser"] != analyser:
        difference = f"was made with --analyser {made['analyser']}, not {analyser}"
    else:
        for _ in track(reader, f"reading {reader.name}", corpus.passages):
            pass
        if reader.corpus().hash == corpus.hash:
            return corpus
        difference = (
            f"holds the index of another corpus ({corpus.name}, {corpus.passages:,} passages; this one has "
            f"{reader.corpus().passages:,})"
        )
    if is_final:
        raise ConfigurationError(f"{done} {difference}; give another folder, or delete that one")
    note(f"the build that was stopped {difference}: it begins anew")
    return None
