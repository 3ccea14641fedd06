"""A policy in Hugging Face format that is there already: a folder, or a model of the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from learners.names import flat

_HUB_ID = re.compile(r"\w[\w.-]*(?:/[\w.-]+)?")
"""`name` or `owner/name`."""
_HUB_PATIENCE = 5.0
"""Seconds. Transformers itself tries for half a minute where there is no network."""


def check_folder(option: str, folder: Path) -> None:
    """Raises ValueError where a folder holds no policy; the message names what is most likely meant.

    Args:
        option: What gave the folder, for the message, e.g. `"--model"`; empty for an argument without a name.
        folder: A path.
    """
    what = f"{option} {folder}".strip()
    if not folder.exists():
        raise ValueError(f"{what}: there is no such folder")
    if not folder.is_dir():
        raise ValueError(f"{what} is a file; give a folder in Hugging Face format")
    if (folder / "config.json").is_file():
        return
    inside = folder / "checkpoint"
    if (inside / "config.json").is_file():
        raise ValueError(f"{what} is the folder of a run; its policy is {inside}")
    if (folder / "metrics.jsonl").exists() or (folder / "reference").exists():
        raise ValueError(f"{what} is the folder of a run that has no checkpoint yet")
    raise ValueError(f"{what} holds no policy in Hugging Face format: it has no config.json")


def settings(option: str, model: str) -> Any:
    """A policy's own configuration, as transformers reads it; the Hub is asked only for what is not on this disk.

    Args:
        option: As `check_folder`.
        model: Folder or Hub id.

    Raises:
        ValueError: there is no such policy, or the Hub cannot be reached; the message is one line.
    """
    if _is_path(model):
        check_folder(option, Path(model))
    from transformers import AutoConfig

    return _load(AutoConfig, option, model)


def tokenizer(option: str, model: str) -> Any:
    """A policy's tokenizer; arguments and errors as `settings`."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, option, model)


def _load(kind: Any, option: str, model: str) -> Any:
    try:
        return kind.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(model).is_dir():
            raise ValueError(f"{option} {model}: {str(error).splitlines()[0]}") from None
    _ask_hub(option, model)
    try:
        return kind.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"{option} {model}: {str(error).splitlines()[0]}") from None


def _is_path(model: str) -> bool:
    """Whether a folder of this machine is meant, there or not."""
    path = Path(model)
    # An owner on the Hub whose name is also a folder here is less likely than a slip in a path.
    return path.exists() or not _HUB_ID.fullmatch(model) or ("/" in model and path.parent.is_dir())


def _ask_hub(option: str, model: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(model, timeout=_HUB_PATIENCE)
    except HFValidationError:
        reason = "and it cannot be a name on the Hub"
    except GatedRepoError:
        reason = "and its owner on the Hub lets in only who has asked: accept the terms there, and log in"
    except RepositoryNotFoundError:
        reason = "and the Hub has no such model, or it is private"
    except Exception as error:  # whatever the network does
        reason = f"and the Hub cannot be asked ({flat(error)})"
    else:
        return
    raise ValueError(f"{option} {model}: there is no such folder, {reason}")
