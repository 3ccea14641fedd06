"""Embedded indexes from files: BM25, dense, or both, in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from research_env import names
from research_env.corpora.reader import CorpusReader, open_file
from research_env.errors import ConfigurationError, RetrievalError
from research_env.files import home
from research_env.retrieval.base import Retriever
from research_env.retrieval.embedded.bm25 import (
    ABOUT_FILE,
    ANALYSERS,
    Bm25Index,
    build,
    building,
    check_content,
    index_folder,
)
from research_env.retrieval.embedded.dense import DenseIndex, build_dense
from research_env.retrieval.fusion import Hybrid
from research_env.retrieval.options import check_options
from research_env.types import Corpus


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
    dense = DenseIndex(folder / "dense", chosen.device)
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
    encoder: str | None = None,
    device: str = "cpu",
) -> tuple[Corpus, int]:
    """Build the index of a corpus in `folder`.

    Args:
        reader: Reads its passages.
        folder: Where; an index that is whole already is left as it is.
        analyser: Language of the passages, one of `ANALYSERS`.
        encoder: A sentence-transformers model: vectors are made too.
        device: Where passages are encoded.

    Returns:
        What was indexed, and the number of bad rows that were left out.

    Raises:
        ConfigurationError, DataInvalid: the corpus cannot be read.
        RetrievalError: the disk is full or the folder cannot be written.
    """
    if analyser not in ANALYSERS:
        hint = names.did_you_mean(analyser, ANALYSERS)
        raise ConfigurationError(f"--analyser={analyser!r} is unknown; known: {', '.join(ANALYSERS)}{hint}")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"--to {folder}: that is a file; give a folder")
    # An index is renamed into its place, over an empty folder at most: other files there must not be lost.
    if folder.exists() and not (folder / ABOUT_FILE).exists() and any(folder.iterdir()):
        raise RetrievalError(f"{folder} holds something that is not an index; give another folder")
    with building(folder, f"the index of {reader.name!r}"):
        if not (folder / ABOUT_FILE).exists():
            build(folder, reader, reader.total, reader.corpus, analyser)
        elif (there := Bm25Index(folder).settings["analyser"]) != analyser:
            raise ConfigurationError(f"{folder} was made with --analyser {there}, not {analyser}; give another folder")
        # The corpus is read to compare it, unless `build_dense` is about to read it anyway.
        elif not encoder or (folder / "dense").exists():
            check_content(folder, reader.read())
        if encoder:
            reader = reader.again()  # the count and the hash are those of this pass
            build_dense(folder, reader, encoder, device)
    return Bm25Index(folder).corpus, reader.skipped
