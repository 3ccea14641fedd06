"""Texts to vectors: a sentence-transformers encoder, with the prompts that it was trained with."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError
from research_env.text import one_line
from research_env.types import Passage

BATCH = 64


@dataclass(frozen=True)
class Prompts:
    """What stands before each text that is encoded. An index keeps it, so that its queries fit its passages."""

    query: str
    passage: str


@dataclass(frozen=True)
class EncoderOptions:
    """What a person chooses."""

    model: str
    """A sentence-transformers model, or any transformers encoder: its folder, or its id on the Hub."""
    device: str = "cpu"
    """Where it computes, e.g. `"cuda"`."""
    query_prompt: str | None = None
    """None takes the model's own, or else the one that its name is known for."""
    passage_prompt: str | None = None
    """Likewise."""


def prompts_by_name(model: str) -> Prompts:
    """The prompts of models whose configurations have none: E5 was trained with "query: " and "passage: "."""
    # The last part of a Hub id or a path, but for a snapshot in the Hub's cache: models--NAME/snapshots/REVISION.
    parts = [part for part in re.split(r"/|--", model.lower()) if not re.fullmatch(r"|snapshots|[0-9a-f]{40}", part)]
    name = parts[-1] if parts else ""
    if re.search(r"(^|[-_])e5", name) and "instruct" not in name:
        return Prompts("query: ", "passage: ")
    if name.startswith("bge-") and "-en" in name:
        return Prompts("Represent this sentence for searching relevant passages: ", "")
    return Prompts("", "")


class Encoder:
    """Texts -> unit vectors. Thread-safe: one batch of texts at a time."""

    def __init__(self, options: EncoderOptions, *, plain: bool = False) -> None:
        """Load the model.

        Args:
            options: Which, where, and its prompts.
            plain: Encode as indexes without recorded prompts were: the model's own are ignored.

        Raises:
            ConfigurationError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigurationError(MISSING) from None
        self.name, self._plain = options.model, plain
        try:
            self._model = SentenceTransformer(options.model, device=options.device)
        # A folder can hold anything: OSError, KeyError, errors of safetensors. torch raises AssertionError for a device
        # that it was not built for.
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigurationError(f"encoder {options.model!r} cannot be loaded: {said}") from None
        self.dims = int(self._model.get_embedding_dimension() or 0)
        found = (None if plain else self._own()) or prompts_by_name(options.model)
        query, passage = options.query_prompt, options.passage_prompt
        self.prompts = Prompts(found.query if query is None else query, found.passage if passage is None else passage)
        self._lock = threading.Lock()

    def _own(self) -> Prompts | None:
        """The prompts in the model's configuration, under the names that sentence-transformers looks for."""
        own = {name: text or "" for name, text in self._model.prompts.items()}
        usual = own.get(self._model.default_prompt_name or "", "")
        passage = next((own[name] for name in ("document", "passage", "corpus") if own.get(name)), usual)
        found = Prompts(own.get("query") or usual, passage)
        return found if found.query or found.passage else None

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """`[N, dims]` float32, of length 1."""
        return self._encode(self._model.encode_query, texts, self.prompts.query)

    def passages(self, passages: Sequence[Passage]) -> np.ndarray:
        """`[N, dims]` float32, of length 1.

        Raises:
            RetrievalError: the model fails, or its numbers are not finite.
        """
        return self._encode(self._model.encode_document, [contents(p) for p in passages], self.prompts.passage)

    def _encode(self, encode: Any, texts: Sequence[str], prompt: str) -> np.ndarray:
        # Cut, because the tokenizer would first split all of a text of megabytes; a tokenizer takes UTF-8 only.
        clean = [text[:10_000].encode("utf-8", "replace").decode("utf-8") for text in texts]
        # Each way of encoding may have layers of its own; the prompt is given, so that no other one is taken.
        options: dict[str, Any] = {"batch_size": BATCH, "normalize_embeddings": True, "show_progress_bar": False}
        if self._plain:
            encode, clean = self._model.encode, [prompt + text for text in clean]
        else:
            options["prompt"] = prompt
        try:
            with self._lock:
                vectors = np.asarray(encode(clean, **options), np.float32)
        except RuntimeError as error:  # e.g. a device that is out of memory
            raise RetrievalError(f"encoder {self.name!r} failed ({one_line(error)[:200]})") from error
        if not np.isfinite(vectors).all():
            raise RetrievalError(f"encoder {self.name!r} makes vectors that are not finite numbers; use another")
        return vectors


MISSING = "dense retrieval needs sentence-transformers and faiss: pip install 'research-gym[dense]'"
"""What to say where an import fails."""


def recorded(about: dict[str, Any], device: str) -> Encoder:
    """The encoder that an index was made with; `about` is what the index says about itself."""
    prompts = about.get("prompts")
    if prompts is None:
        return Encoder(EncoderOptions(about["encoder"], device), plain=True)
    return Encoder(EncoderOptions(about["encoder"], device, prompts["query"], prompts["passage"]))
