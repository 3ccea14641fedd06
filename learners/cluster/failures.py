"""Which actor failed, and the likely reason, as one line. Ray is imported where it is used: `local.py` needs none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from learners.errors import ActorFault, Fault
from learners.names import flat, one_line

_PATIENCE = 5.0
"""Seconds that the other actors have to end too, after one has failed: the first error seen may be a consequence."""
_LONGEST = 300
"""Characters of somebody else's message that are kept."""

CHANGING = ("step", "load")
"""Methods of `Trainer` that change what it holds."""
UNSURE = "the trainer failed in the middle of its work, so what it holds may be half of an update"
KILLED = "being out of memory is the usual reason: lower its use, or look in the machine's log (dmesg)"


def get(calls: Mapping[str, Any], after: Mapping[str, Any] | None = None) -> list[Any]:
    """`ray.get` of calls by the name of their actor.

    Args:
        calls: e.g. `{"engine 0": …}`.
        after: Calls whose results these take: the failure may be theirs.

    Raises:
        Fault: as the actor raised it.
        ActorFault: an actor died or raised anything else. The cause holds the actor's traceback.
    """
    import ray

    try:
        return ray.get(list(calls.values()))
    except ray.exceptions.RayError:
        fault = _fault(_failed({**(after or {}), **calls}))
        raise fault from fault.__cause__


def finished(calls: Mapping[str, Any]) -> bool:
    """Whether all of these have come to an end, well or badly; waits a few seconds for them."""
    import ray

    refs = list(calls.values())
    return len(ray.wait(refs, num_returns=len(refs), timeout=_PATIENCE, fetch_local=False)[0]) == len(refs)


def _failed(calls: Mapping[str, Any]) -> dict[str, Any]:
    """The errors of the calls that failed. One of them at least has."""
    import ray

    finished(calls)
    found: dict[str, Any] = {}
    for who, call in calls.items():
        if not ray.wait([call], timeout=0, fetch_local=False)[0]:
            continue
        try:
            ray.get(call)
        except ray.exceptions.RayError as error:
            found[who] = error
    return found


def _fault(failed: Mapping[str, Any]) -> Fault:
    from ray.exceptions import RayActorError, RayTaskError

    for error in failed.values():
        if isinstance(error, RayTaskError) and isinstance(error.cause, Fault):
            cause: Fault = error.cause
            return cause
    # An actor whose neighbour has died fails as well, when it waits for it.
    who, error = next(((w, e) for w, e in failed.items() if isinstance(e, RayActorError)), next(iter(failed.items())))
    of_task = isinstance(error, RayTaskError)
    fault = failure(who, error.cause) if of_task else ActorFault(f"{who} died: {_death(str(error))}")
    fault.__cause__ = error  # with the actor's traceback
    return fault


def failure(who: str, error: BaseException) -> ActorFault:
    """What an actor raised, as a fault of the run."""
    line = one_line(error)
    short = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    # vLLM's engine is a process of its own, below the actor.
    why = f"; {KILLED}" if "EngineDead" in type(error).__name__ else "; RESEARCH_DEBUG=1 prints the traceback"
    return ActorFault(f"{who} failed: {short}{why}")


def _death(text: str) -> str:
    """Ray's paragraph about a dead actor, shortened."""
    process = re.search(r"pid[:=] ?(\d+)", text)
    who = f"its process {process[1]}" if process else "its process"
    if "low on memory" in text or "OutOfMemory" in text:
        return f"Ray ended {who}, because the machine ran low on memory"
    if "exit type: INTENDED" in text or "ray.kill" in text:
        return f"{who} was ended from outside"
    if "worker process has died" in text or "exit type" in text:
        return f"{who} was killed or crashed; {KILLED}"
    return flat(text)[:_LONGEST]
