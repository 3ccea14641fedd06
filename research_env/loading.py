"""What all environments of a process share: data sets, questions, retrievers. A rollout has hundreds of environments.

This is the only file that knows both questions and retrieval. Everything is loaded once for a key, and every key has a
lock of its own: while one thread builds an index, other threads go on, and load what they need.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, TypeVarTuple

from cachetools import LRUCache

from research_env import names
from research_env.corpora.reader import CorpusReader, from_pool, open_file
from research_env.dataset_checks import check_ids, checked, is_question
from research_env.errors import ConfigurationError
from research_env.files import home, replace
from research_env.questions.base import select
from research_env.questions.catalogue import DATASETS, loaders
from research_env.retrieval.addresses import open_retriever
from research_env.retrieval.base import NoRetriever
from research_env.retrieval.embedded.pool import check_pool_options, open_pool
from research_env.retrieval.gateway.gateway import Gateway
from research_env.types import Corpus, Dataset, Pool, Question

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_KEPT = 128  # results of one function; a curriculum over worlds must not keep all of them


class Once(Generic[*Ts, T]):
    """A function whose result is kept for each key, which is its positional arguments.

    Threads that ask for the same key at once wait for the first; a slow key does not delay the others. A call that
    raises keeps nothing: the next one tries again.
    """

    def __init__(self, function: Callable[[*Ts], T]) -> None:
        self._function = function
        self.forget()

    def renew_locks(self) -> None:
        """Keep the results and make new locks: in a child process nobody releases what a thread held at the fork."""
        _, kept, _ = self._state
        self.forget()
        self._state[1].update(kept)

    def forget(self) -> None:
        """Forget every result."""
        # One attribute, so that a running call ends with the state that it began with and keeps nothing in the new one.
        self._state: tuple[threading.Lock, LRUCache[Any, T], dict[Any, Any]] = (threading.Lock(), LRUCache(_KEPT), {})

    def __call__(self, *key: *Ts) -> T:
        lock, kept, loading = self._state
        with lock:  # for a moment only, never while something is loaded
            if key in kept:
                return kept[key]
            # Reentrant: a data set that asks for itself while it loads must end in an error and not in a deadlock.
            mine = loading.setdefault(key, threading.RLock())
        with mine:
            with lock:
                if key in kept:  # another thread has loaded it while this one waited
                    return kept[key]
            result = self._function(*key)
            with lock:
                kept[key] = result
                loading.pop(key, None)
        return result


class DatasetKey(NamedTuple):
    """A data set as a key of what is loaded from it, e.g. `DatasetKey("synthetic", '{"world_seed": 7}')`."""

    name: str
    """A name of `DATASETS`, or somebody else's `module:load`."""
    options: str = "{}"
    """Keyword arguments of its loader, JSON with sorted keys."""
    others: tuple[str, ...] = ()
    """Keyword arguments that are not the loader's, for the message about an unknown one."""


@Once
def dataset(key: DatasetKey) -> Dataset:
    """Load a data set.

    Raises:
        ConfigurationError: the name is unknown, its loader does not take an option, or what it loads is not a data set.
    """
    table, options = loaders(), json.loads(key.options)
    parameters = _parameters(names.load(table, "dataset", key.name))
    for name in options:
        if parameters is not None and name not in parameters:
            known = [*parameters, *sorted(key.others)]
            hint = names.did_you_mean(name, known).removeprefix("; ") or f"known: {', '.join(known)}"
            raise ConfigurationError(f"{name}={options[name]!r} is not a keyword argument of this environment; {hint}")
    return checked(names.make(table, "dataset", key.name, (), **options), key.name)


@Once
def questions(key: DatasetKey, split: str, hops: tuple[int, ...] | None) -> Sequence[Question]:
    """The questions of a split with these hop counts; None keeps all.

    Raises:
        ConfigurationError: there is no such split, or no such question in it.
    """
    splits = dataset(key).splits
    if split not in splits:
        known = ", ".join(map(repr, splits)) or "no splits"
        raise ConfigurationError(f"split={split!r}: {key.name} has {known}")
    there = splits[split]
    # Somebody else's loader may have put anything here; of a long split the first question stands for all.
    if not isinstance(there, Sequence) or not all(is_question(each) for each in there[:1]):
        raise ConfigurationError(f"dataset={key.name!r}: split {split!r} is not a sequence of Question")
    if not len(there):
        raise ConfigurationError(f"split={split!r}: {key.name} has no question in it")
    # Our own are checked when they are installed. A lazy sequence is checked in `positions`, which makes all of it.
    if ":" in key.name and isinstance(there, list | tuple):
        check_ids(key.name, split, there)
    found = there if hops is None else select(there, hops)
    if not len(found):
        what = f"hops={list(hops or ())}"
        reason = f"{key.name} {split} has no question with that many hops" if hops else "give at least one hop count"
        raise ConfigurationError(f"{what}: {reason}")
    return found


@Once
def positions(key: DatasetKey, split: str, hops: tuple[int, ...] | None) -> Mapping[str, int]:
    """Question id -> its index in `questions(key, split, hops)`.

    Raises:
        ConfigurationError: as `questions`; or two questions have the same id.
    """
    found = questions(key, split, hops)
    if hops is None:
        check_ids(key.name, split, found)
    return {question.id: index for index, question in enumerate(found)}


@Once
def retriever(key: DatasetKey, address: str, options: str) -> Gateway:
    """What searches the corpus at an address; `"pooled"` is built at first use. `options` is JSON with sorted keys.

    Raises:
        ConfigurationError, RetrievalError: as `open_retriever`; or the data set has no passages of its own.
    """
    if address == "none":  # whatever the options: a run evaluates without retrieval by this one change
        return Gateway(NoRetriever())
    given = json.loads(options)
    if address == "pooled":
        return open_pool(pool(key), given)
    if address in DATASETS and not os.path.exists(address):
        raise ConfigurationError(
            f"corpus={address!r} is the name of a data set: write 'pooled' for the passages of the environment's own "
            f"set; those of another need an index: python -m research_env index build --corpus {address} --to FOLDER"
        )
    return open_retriever(address, **given)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens a retriever when it is called, as `retriever` does. It can be pickled, which a retriever can not."""

    key: DatasetKey
    address: str
    options: str

    def __call__(self) -> Gateway:
        return retriever(self.key, self.address, self.options)


def corpus(key: DatasetKey, address: str, options: str) -> dict[str, Any]:
    """What is searched, as it is reported: `Corpus` as a dictionary, a new one at each call."""
    return asdict(_corpus(key, address, options))


@Once
def _corpus(key: DatasetKey, address: str, options: str) -> Corpus:
    # An environment reports its corpus when it is made, and many never search. So a pool's index is not built for the
    # report; every other address is opened, so that a wrong one is an error at once.
    if address == "pooled" and check_pool_options(json.loads(options)).mode != "replay":
        return pool(key).corpus()
    return retriever(key, address, options).corpus


def knows_gold(key: DatasetKey, address: str, options: str) -> bool:
    """Whether the gold passages of a data set's questions are known by their ids in what is searched.

    They are where nothing is searched, where the passages are those of the set's own pool (wherever they are indexed),
    and where the set has no pool: then its ids are meant for the corpus that is named.
    """
    own = dataset(key).pool
    if own is None or address == "none":
        return True
    found = _corpus(key, address, options)
    if found.hash == own.fingerprint:
        return True
    # Hashing the pool takes a pass over it, so what has another size is not compared.
    return found.hash is not None and found.passages == own.count() and found.hash == _content_hash(key)


@Once
def _content_hash(key: DatasetKey) -> str:
    """Hash of the passages of a pool, as an index made of them reports it. It is kept on the disk."""
    own = pool(key)
    kept = home() / "hashes" / hashlib.sha256(f"{own.name}\n{own.fingerprint}".encode()).hexdigest()
    with suppress(OSError):
        return kept.read_text("ascii")
    found = from_pool(own).read().hash or ""
    with suppress(OSError):  # where nothing can be written, it is right all the same
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace(kept, found.encode())
    return found


def pool(key: DatasetKey) -> Pool:
    """The passages that come with a data set.

    Raises:
        ConfigurationError: it has none.
    """
    found = dataset(key).pool
    if found is None:
        raise ConfigurationError(
            f"dataset {key.name!r} has no passages of its own: say with corpus= what is searched, e.g. a file of "
            "passages, elasticsearch://host:9200/index, or 'none'"
        )
    return found


def open_corpus(address: str, skip_bad: bool = False) -> CorpusReader:
    """The passages of a file, or of a data set, which is a name of `DATASETS` or somebody else's `module:load`.

    Raises:
        ConfigurationError: the address is neither a file nor a data set, or the data set has no passages.
    """
    if os.path.isfile(address):
        return open_file(Path(address), skip_bad)
    if _is_dataset(address):
        return from_pool(pool(DatasetKey(address)), skip_bad)
    hint = names.did_you_mean(address, DATASETS)
    raise ConfigurationError(
        f"corpus {address!r} is neither a file nor a data set; known data sets: {', '.join(DATASETS)}, or "
        f"module:load{hint}"
    )


def open_gateway(address: str, options: dict[str, Any]) -> Gateway:
    """What `serve` searches: the passages of a data set, or what is at an address. The caller closes it.

    Raises:
        ConfigurationError, RetrievalError: as `retriever`.
    """
    return open_pool(pool(DatasetKey(address)), options) if _is_dataset(address) else open_retriever(address, **options)


def forget() -> None:
    """Forget everything that was loaded: for tests, and for a child process."""
    for function in (dataset, questions, positions, retriever, _corpus, _content_hash):
        function.forget()


def _is_dataset(address: str) -> bool:
    # `module:function://…` is a retriever's address, and a path may have a colon in it.
    plugin = ":" in address and "://" not in address and not os.path.exists(address)
    return address in DATASETS or plugin


def _parameters(load: Any) -> list[str] | None:
    """Names of the keyword arguments that a loader takes; None where it takes any, or does not tell."""
    try:
        parameters = inspect.signature(load).parameters.values()
    except (TypeError, ValueError):  # not callable, or a builtin: `names.make` has the error message
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return sorted(parameter.name for parameter in parameters)


def _in_child() -> None:
    """A child process must not use its parent's connections, nor wait for locks that its parent's threads hold."""
    for function in (dataset, questions, positions, _corpus, _content_hash):
        function.renew_locks()
    retriever.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
