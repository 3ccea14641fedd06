"""Where settings come from: presets, TOML files and saved runs, each a dictionary."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learners.messages import shown
from learners.names import did_you_mean


class Source(NamedTuple):
    """A place where settings are written: a preset, a file, a saved run, a dictionary, or the command line."""

    name: str
    """For messages, e.g. `"the preset tiny-cpu"`; empty for what was given directly."""
    settings: Mapping[str, Any]
    """As they are written there."""
    line: bool = False
    """Whether it is the command line."""
    saved: bool = False
    """Whether these are the settings that a checkpoint was trained with."""


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two dictionaries as one, at every depth; `above` wins. A list is one value and is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def at(settings: Mapping[str, Any], place: Sequence[Any], missing: Any = None) -> Any:
    """The value at a place, e.g. `("engine", "threads")` or `("research", "stages", 0)`; `missing` where none is."""
    value: Any = settings
    for part in place:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return missing
    return value


def leaves(settings: Mapping[str, Any], place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Place -> value of every setting that holds no others, e.g. `{("engine", "threads"): 2}`."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in settings.items():
        inner = leaves(value, (*place, name)) if isinstance(value, Mapping) else {}
        found |= inner or {(*place, name): value}
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two dictionaries, e.g. `["top_k 1 -> 5"]`; one of both may lack a name."""
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = (shown(each[name]) if name in each else "not given" for each in (before, after))
        if old != new:
            found.append(f"{name} {old} -> {new}")
    return found


def preset_path(name: str) -> Path:
    """The TOML file of a preset, by name or by path.

    Raises:
        ValueError: there is no such preset.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"--preset {name}: there is no such file")
        return Path(name)
    folder = Path(__file__).parent / "presets"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise ValueError(f"--preset {name} is unknown; known: {', '.join(known)}{did_you_mean(name, known)}")
    return folder / f"{name}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ValueError: it is missing or broken, or names a file that it is on top of; the message names file and line.
    """
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # the base of TOMLDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is not TOML: {error}") from error
    if "config" in settings:
        raise ValueError(f"config = {settings['config']!r} in {path}: a file cannot name another one; leave it out")
    return settings
