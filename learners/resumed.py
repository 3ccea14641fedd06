"""The settings of a run that is resumed, which are its base: no preset and no default is mixed into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners import checkpoint
from learners.environment import same_environment
from learners.messages import shown
from learners.old_form import new_form
from learners.settings import Source, at, changes, leaves

_OF_THE_CALL = ("resume", "dry_run", "runs", "name")
"""Settings that say what one call of the program does, and not what the run is."""
_FIRST_POLICY = ("seed", "model", "tiny", "warmup")
"""They decide the first policy and its tokenizer, and so the reference, which a run keeps as long as it goes on."""


def read(known: Mapping[str, Any], explicit: bool) -> Source | None:
    """The settings that the run to be resumed was started with.

    Args:
        known: `runs` and `name`.
        explicit: Whether a preset or a file says what settings a run has that saved none.

    Returns:
        None where the run has no checkpoint, which the choice of its folder reports, or saved none.

    Raises:
        ValueError: the checkpoint's state cannot be read, or says nothing of settings.
    """
    run = Path(str(known.get("runs", "runs"))) / str(known.get("name") or "")
    try:
        if checkpoint.find(run) is None:
            return None
    except OSError as error:  # e.g. the name is too long
        raise ValueError(f"--resume: {run}: {error.strerror}") from None
    folder, state = checkpoint.read_state(run)
    if not isinstance(state.get("config"), Mapping):
        if explicit:
            return None
        raise ValueError(
            f"--resume: {folder} does not say with which settings it was trained; add --preset or --config"
        )
    return source(f"the settings of {run}", state["config"])


def source(name: str, config: Mapping[str, Any]) -> Source:
    """Saved settings as a source, in their present form."""
    return Source(name, new_form({k: v for k, v in config.items() if k not in _OF_THE_CALL}), saved=True)


def check_preset(preset: Any, saved: Source | None) -> None:
    """A preset is never mixed into a run that began without it.

    Raises:
        ValueError: it is given, and the run began with another one.
    """
    began = saved.settings.get("preset") if saved else None
    if began is not None and preset is not None and preset != began:
        raise ValueError(
            f"--resume: the run began with --preset {began} and keeps its own settings; leave out --preset {preset}"
        )


def over(saved: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Saved settings and those on top of them, where `env` in the latter may name the run's own environment again.

    `research` stands for that, whatever it is called: a script may write `--env research` before every other argument.
    Another environment does not get the keyword arguments that were given for the run's own.
    """
    if "env" not in new:
        return dict(saved), dict(new)
    env, own = str(new["env"]), saved.get("env", "research")
    if env == "research" or same_environment(env, str(at(saved, ("research", "id")) if own == "research" else own)):
        return dict(saved), {name: value for name, value in new.items() if name != "env"}
    return {name: value for name, value in saved.items() if name not in ("env_kwargs", "eval_env_kwargs")}, dict(new)


def check_algorithm(saved: Source, algorithm: str) -> None:
    """Raises ValueError where a resumed run would go on with another algorithm."""
    began = saved.settings.get("algorithm", algorithm)
    if began != algorithm:
        raise ValueError(
            f"--algorithm {algorithm}: the run began with {began}, and its optimiser with it; leave it out, or begin "
            "a new run from its policy: --model FOLDER/checkpoint"
        )


def check_policy(saved: Source, now: Mapping[str, Any]) -> None:
    """Raises ValueError where a setting of a resumed run would give another first policy than it began with.

    Args:
        saved: What it began with.
        now: All settings, checked, as JSON.
    """
    began = {place: value for place, value in leaves(saved.settings).items() if place[0] in _FIRST_POLICY}
    for place, value in began.items():
        other = at(now, place)
        # A folder may have been given by a path that holds only where the run was begun.
        if place == ("model",) and str(Path(str(value)).resolve()) == other:
            continue
        if other != value:
            name = ".".join(place)
            raise ValueError(
                f"--resume: the run began with {name} = {shown(value)}, and {shown(other)} would be another policy; "
                f"leave out --{name.replace('_', '-')}"
            )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a resumed run does otherwise than before, e.g. `["steps 100 -> 200"]`; both are whole configurations."""
    flat = [
        {
            ".".join(place): value
            for place, value in leaves(each).items()
            if place[0] not in _OF_THE_CALL and value != {}
        }
        for each in (before, after)
    ]
    return changes(*flat)
