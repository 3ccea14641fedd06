"""What all environments of a process share: data sets, questions, retrievers. A rollout has hundreds of them."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from research_env.errors import ConfigurationError
from research_env.plugins import load
from research_env.questions import DATASETS, Dataset, Question, select
from research_env.retrieval import NoRetriever, Retriever, open_retriever
from research_env.retrieval.addresses import check_pool_options, open_pool

P = ParamSpec("P")
T = TypeVar("T")

_loading = threading.RLock()


def _once(function: Callable[P, T]) -> Callable[P, T]:
    """Keep what was loaded for the life of the process. Threads that ask at once wait for the first."""
    cached = lru_cache(function)

    @wraps(function)
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        with _loading:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    once.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return once


class Source(NamedTuple):
    """A data set as a key of what is loaded from it."""

    name: str
    options: str
    """Keyword arguments of its loader, JSON."""
    others: tuple[str, ...] = ()
    """Keyword arguments that are not the loader's, for the message about one that is nobody's."""


@_once
def dataset(source: Source) -> Dataset:
    """Load a data set.

    Raises:
        ConfigurationError: an option that its loader does not take.
    """
    loader = load(DATASETS, "dataset", source.name)
    arguments, known = json.loads(source.options), sorted(inspect.signature(loader).parameters)
    for key in arguments:
        if key not in known:
            known += sorted(source.others)
            close = difflib.get_close_matches(key, known, 1)
            raise ConfigurationError(
                f"{key}={arguments[key]!r} is not a keyword argument of this environment; "
                + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")
            )
    loaded: Dataset = loader(**arguments)
    return loaded


@_once
def questions(source: Source, split: str, hops: tuple[int, ...] | None) -> Sequence[Question]:
    """The questions of a split with these hop counts.

    Raises:
        ConfigurationError: there is no such split, or no such question in it.
    """
    splits = dataset(source).splits
    if split not in splits:
        raise ConfigurationError(f"split={split!r}: {source.name} has {', '.join(map(repr, splits))}")
    found = splits[split] if hops is None else select(splits[split], hops)
    if not len(found):
        raise ConfigurationError(f"hops={list(hops or ())}: {source.name} {split} has no question with that many hops")
    return found


@_once
def retriever(source: Source, address: str, options: str) -> Retriever:
    """What searches the corpus at an address; `"pooled"` is built at first use.

    Raises:
        ConfigurationError, RetrievalError: as `open_retriever`.
    """
    if address == "none":  # whatever the options: a run evaluates without retrieval by this one change
        return NoRetriever()
    given = json.loads(options)
    if address != "pooled":
        return open_retriever(address, **given)
    return open_pool(dataset(source), given)


def corpus(source: Source, address: str, options: str) -> dict[str, Any]:
    """What is searched, for the record. A pool's index is not built for that; whatever else is searched is opened."""
    if address == "pooled" and check_pool_options(json.loads(options)).mode != "replay":
        pool = dataset(source)
        return {"name": pool.name, "passages": pool.num_passages, "hash": pool.fingerprint}
    return asdict(retriever(source, address, options).corpus)


def _in_child() -> None:
    """A child process must not write to its parent's connections, nor wait for its parent's threads."""
    global _loading
    _loading = threading.RLock()
    retriever.cache_clear()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
