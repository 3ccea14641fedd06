"""What each kind of plug-in must have, checked without making one: before a run a `ValueError` of one line.

What a plug-in gives in the middle of a run is checked where it is used, and is a `PluginFault`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from functools import wraps
from typing import Any

from pydantic import BaseModel

from learners import border, names
from learners.algorithms import ALGORITHMS
from learners.algorithms.base import SCORES, Algorithm, Term
from learners.engines import ENGINES, Engine
from learners.environment import where
from learners.errors import Fault
from learners.metrics import Metrics, of_environment
from learners.renderers import RENDERERS, Renderer
from learners.types import Trajectory


class PluginFault(Fault):
    """Somebody else's plug-in gave something that does not fit, in the middle of a run; the message is one line."""


_ALGORITHM = ("Settings", "needs", "rounds", "keep", "probes", "credit", "share", "loss", "terms")


def algorithm(name: str) -> type[Algorithm]:
    """The class of an algorithm, by its name in `ALGORITHMS` or as `module:Class`.

    Raises:
        ValueError: it cannot be loaded, or is not an algorithm, or asks for scores that no trainer computes.
    """
    what = "--algorithm"
    found: type[Algorithm] = names.check(ALGORITHMS, what, name, needs=_ALGORITHM, takes=("settings",))
    # The base has these two only to describe them.
    missing = [part for part in ("credit", "loss") if getattr(found, part) is getattr(Algorithm, part)]
    if missing:
        raise ValueError(f"{what} {name} lacks: {', '.join(missing)}")
    if not (isinstance(found.Settings, type) and issubclass(found.Settings, BaseModel)):
        raise ValueError(f"{what} {name} has Settings = {found.Settings!r}; give a pydantic model")
    _check_scores(f"{what} {name}", found.needs)
    if not isinstance(found.rounds, int) or found.rounds < 0:
        raise ValueError(f"{what} {name} has rounds = {found.rounds!r}; give a whole number, 0 or more")
    return found


def make_algorithm(name: str, settings: BaseModel) -> Algorithm:
    """An algorithm with these settings. Whatever a method of somebody else's raises is a `PluginFault`."""
    made: Algorithm = names.load(ALGORITHMS, "--algorithm", name)(settings)
    if name not in ALGORITHMS:  # an error in our own is a bug, and keeps its traceback
        for method in ("keep", "probes", "credit", "share", "loss", "terms"):
            setattr(made, method, guarded(f"{type(made).__name__}.{method}", getattr(made, method)))
    return made


def guarded(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function or class; whatever calling it raises is a `PluginFault` that begins with `what`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Fault:
            raise
        except Exception as error:
            raise PluginFault(f"{what} failed: {names.one_line(error)}{where(error)}") from error

    return call


def check_terms(name: str, settings: BaseModel) -> None:
    """Make an algorithm, which is cheap, and check the scores that its terms ask for.

    Raises:
        ValueError: as `algorithm`; or the settings or the terms fail.
    """
    what = f"--algorithm {name}"
    found: Any = algorithm(name)
    try:
        terms = found(settings).terms()
    except Exception as error:  # somebody else's code
        raise ValueError(f"{what} cannot be made from its settings ({names.one_line(error)})") from error
    if not isinstance(terms, list) or not all(isinstance(term, Term) for term in terms):
        raise ValueError(f"{what}: terms() returned {terms!r}; give a list of learners.algorithms.base.Term")
    if len({term.name for term in terms}) < len(terms):
        raise ValueError(f"{what}: two terms have the same name: {', '.join(term.name for term in terms)}")
    for term in terms:
        _check_scores(f"{what}, term {term.name!r},", term.needs)


def _check_scores(who: str, needs: Any) -> None:
    if not isinstance(needs, Set):
        raise ValueError(f"{who} has needs = {needs!r}; give a set of names")
    unknown = sorted(needs - SCORES)
    if unknown:
        raise ValueError(f"{who} needs {', '.join(unknown)}; what can be computed is: {', '.join(sorted(SCORES))}")


def engine(kind: str) -> Any:
    """The class of an engine, by its name in `ENGINES` or as `module:Class`; raises as `algorithm` does."""
    needs = ("generate", "update_weights", "close")
    found = names.check(ENGINES, "--engine.kind", kind, needs=needs, takes=("config", "model", "seed="))
    _check_own_parts(f"--engine.kind {kind}", found, Engine, needs)
    blocking = [part for part in needs if not inspect.iscoroutinefunction(getattr(found, part))]
    if blocking:
        raise ValueError(f"--engine.kind {kind}: write `async def` for {', '.join(blocking)}")
    return found


def renderer(name: str) -> Any:
    """The class of a renderer, by its name in `RENDERERS` or as `module:Class`; raises as `algorithm` does."""
    needs = ("begin", "observe", "decode")
    found = names.check(RENDERERS, "--renderer", name, needs=needs, takes=("tokenizer",))
    _check_own_parts(f"--renderer {name}", found, Renderer, needs)
    return found


def _check_own_parts(what: str, found: type, protocol: type, parts: Sequence[str]) -> None:
    """A class that is derived from a Protocol inherits its empty methods, which return None."""
    missing = [part for part in parts if getattr(found, part) is getattr(protocol, part)]
    if missing:
        raise ValueError(f"{what} lacks: {', '.join(missing)}")


def metrics(name: str) -> Any:
    """The function that turns trajectories into metrics, by its `module:function`; raises as `algorithm` does."""
    return names.check({}, "metrics", name, takes=("trajectories",))


def make_metrics(name: str) -> Callable[[Sequence[Trajectory]], Metrics]:
    """The function of that name; what it raises, or returns amiss, is a `PluginFault`."""
    measure = guarded(f"metrics {name}", names.load({}, "metrics", name))

    def measured(trajectories: Sequence[Trajectory]) -> Metrics:
        found = measure(trajectories)
        kept = border.plain(found)
        if not isinstance(kept, dict) or not all(_is_numbers(values) for values in kept.values()):
            raise PluginFault(f"metrics {name} returned {border.shown(found)}; give metric -> group -> value")
        # None is a number that was not finite.
        return {
            of_environment(metric): {group.replace("/", "-"): x for group, x in values.items() if x is not None}
            for metric, values in kept.items()
        }

    return measured


def _is_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(value, int | float | None) for value in values.values())
