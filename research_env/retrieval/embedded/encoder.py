"""Texts to vectors: a sentence-transformers encoder, with the prompts that it was trained with."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError
from research_env.text import one_line, short
from research_env.types import Passage

BATCH = 64
MISSING = "dense retrieval needs sentence-transformers and faiss: pip install 'research-gym[dense]'"
"""What to say where an import fails."""
_HUB_ID = re.compile(r"\w[\w.-]*(?:/[\w.-]+)?")
"""`name` or `owner/name`."""
_HUB_PATIENCE = 5.0
"""Seconds. Left alone, the Hub's client tries for minutes where there is no network."""


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


_BGE = {
    "en": "Represent this sentence for searching relevant passages: ",
    "zh": "为这个句子生成表示以用于检索相关文章：",
}


def prompts_by_name(model: str) -> Prompts:
    """The prompts of models whose configurations have none: E5 was trained with "query: " and "passage: "."""
    # The last part of a Hub id or a path, but for a snapshot in the Hub's cache: models--NAME/snapshots/REVISION.
    parts = [part for part in re.split(r"/|--", model.lower()) if not re.fullmatch(r"|snapshots|[0-9a-f]{40}", part)]
    name = parts[-1] if parts else ""
    # E5 models made from large language models (instruct, mistral) want a task description instead.
    if re.search(r"(^|[^a-z0-9])e5", name) and not re.search("instruct|mistral", name):
        return Prompts("query: ", "passage: ")
    # Other models of BGE (m3, reranker, icl) have none, or instructions of another form.
    if bge := re.search(r"(?:^|[^a-z0-9])bge-(?:small|base|large)-(en|zh)(?![a-z0-9])", name):
        return Prompts(_BGE[bge[1]], "")
    return Prompts("", "")


class Encoder:
    """Texts -> unit vectors. Thread-safe: one batch of texts at a time."""

    def __init__(self, options: EncoderOptions, *, plain: bool = False) -> None:
        """Load the model.

        Args:
            options: Which, where, and its prompts.
            plain: Encode as indexes without recorded prompts were: the model's own are ignored.

        Raises:
            ConfigurationError: sentence-transformers is not installed, or the model cannot be loaded; its configuration
                has prompts, and none is known to be for queries or passages, and none is given.
        """
        self.name, self._plain = options.model, plain
        try:
            self._model = _loaded(options.model, options.device)
        except ConfigurationError:
            raise
        # A folder can hold anything: OSError, KeyError, errors of safetensors. torch raises AssertionError for a device
        # that it was not built for.
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigurationError(f"encoder {options.model!r} cannot be loaded: {said}") from None
        self.dims = int(self._model.get_embedding_dimension() or 0)
        query, passage = options.query_prompt, options.passage_prompt
        found = (None if plain else self._own()) or prompts_by_name(options.model)
        if not plain and query is None and passage is None and found == Prompts("", "") and (own := self._configured()):
            raise ConfigurationError(
                f"encoder {self.name!r} has prompts ({short(', '.join(own), str)}), but none that is known to be for "
                "queries or for passages: give --query-prompt and --passage-prompt; '' gives none"
            )
        self.prompts = Prompts(found.query if query is None else query, found.passage if passage is None else passage)
        self._lock = threading.Lock()

    def _configured(self) -> dict[str, str]:
        """Name -> prompt in the model's configuration; sentence-transformers puts empty ones where there are none."""
        return {name: text for name, text in self._model.prompts.items() if text}

    def _own(self) -> Prompts | None:
        """The prompts in the model's configuration: `query`, or one whose name ends so, like `search_query`."""
        own = self._configured()
        usual = own.get(self._model.default_prompt_name or "", "")
        query, passage = _named(own, "query"), _named(own, "document", "passage", "corpus")
        found = Prompts(query or usual, passage or usual)
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


def _named(own: Mapping[str, str], *ends: str) -> str | None:
    exact = next((own[end] for end in ends if end in own), None)
    texts = {text for name, text in own.items() if name.lower().endswith(ends)}
    # Of several, for several tasks, nobody knows which one is meant.
    return exact or (texts.pop() if len(texts) == 1 else None)


def _loaded(model: str, device: str) -> Any:
    """The SentenceTransformer, from this disk where it is there, else from the Hub.

    Raises:
        ConfigurationError: there is no such folder, and the Hub has no such model or does not answer.
        Exception: whatever the files of the model lead to.
    """
    is_folder = Path(model).is_dir()
    if not is_folder and _is_path(model):
        raise ConfigurationError(f"encoder {model!r} cannot be loaded: there is no folder {model}")
    try:
        from huggingface_hub import try_to_load_from_cache
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigurationError(MISSING) from None
    if is_folder:
        return SentenceTransformer(model, device=device)
    try:
        known = try_to_load_from_cache(model, "modules.json") is not None
    except ValueError:  # no name on the Hub
        known = False
    # Where nobody has looked for the list of the model's parts, sentence-transformers would make up its own.
    trouble = None if known else _hub_trouble(model)
    if not known and not trouble:
        return SentenceTransformer(model, device=device)
    try:
        return SentenceTransformer(model, device=device, local_files_only=True)
    except (OSError, ValueError):
        if trouble := trouble or _hub_trouble(model):
            raise ConfigurationError(
                f"encoder {model!r} cannot be loaded: there is no folder {model}, and {trouble}"
            ) from None
    return SentenceTransformer(model, device=device)


def _is_path(model: str) -> bool:
    """Whether a folder of this machine is meant, there or not."""
    path = Path(model)
    # An owner on the Hub whose name is also a folder here is less likely than a slip in a path.
    return path.exists() or not _HUB_ID.fullmatch(model) or ("/" in model and path.parent.is_dir())


def _hub_trouble(model: str) -> str | None:
    """Why the Hub does not give this model; None where it does. It is asked once."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(model, timeout=_HUB_PATIENCE)
    except HFValidationError:
        return "it cannot be a name on the Hub"
    except GatedRepoError:
        return "its owner on the Hub lets in only who has asked: accept the terms there, and log in"
    except RepositoryNotFoundError:
        return "the Hub has no such model, or it is private"
    except Exception as error:  # whatever the network does
        return f"the Hub cannot be asked ({one_line(error)[:200] or type(error).__name__})"
    return None


def recorded(about: dict[str, Any], device: str) -> Encoder:
    """The encoder that an index was made with; `about` is what the index says about itself."""
    prompts = about.get("prompts")
    if prompts is None:
        return Encoder(EncoderOptions(about["encoder"], device), plain=True)
    return Encoder(EncoderOptions(about["encoder"], device, prompts["query"], prompts["passage"]))
