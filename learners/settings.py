"""Where settings come from: presets, TOML files and saved runs, each a dictionary."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners import checkpoint


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two dictionaries as one, at every depth; `above` wins. A list is one value and is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


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
        raise ValueError(f"--preset {name} is unknown; known: {', '.join(known)}")
    return folder / f"{name}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ValueError: it is missing or broken; the message names file and line.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # the base of TOMLDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is not TOML: {error}") from error


def read_saved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the run to be resumed was started with; empty where no run is resumed, or it saved none.

    Args:
        settings: What is known before: `runs`, `name` and `resume` are read.

    Raises:
        ValueError: the checkpoint's state cannot be read.
    """
    run = Path(settings.get("runs", "runs")) / (settings.get("name") or "")
    try:
        if not settings.get("resume") or checkpoint.find(run) is None:
            return {}
    except OSError as error:  # e.g. the name is too long
        raise ValueError(f"--resume: {run}: {error.strerror}") from None
    _, state = checkpoint.read_state(run)
    return {k: v for k, v in state.get("config", {}).items() if k not in {"resume", "dry_run", "runs", "name"}}
