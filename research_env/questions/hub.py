"""Official files from the Hugging Face Hub: `python -m research_env data download NAME`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from research_env.errors import ConfigurationError, ResearchError
from research_env.questions.catalogue import DATASETS, Hub
from research_env.questions.store import Installed, install, registration
from research_env.text import short


def download(name: str) -> list[Installed]:
    """Bring a data set from the Hub. All or nothing; the splits that were there are replaced.

    Raises:
        ResearchError: `datasets` is not installed, the Hub cannot be reached, or the data folder cannot be written.
        DataInvalid: a row is not what the format promises.
        ConfigurationError: the set is unknown, or is not on the Hub.
    """
    repo = _hub(name).repo
    return install(name, ((split, f"{repo}, {split} row {short(row.get('id'))}", row) for split, row in fetch(name)))


def fetch(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Official rows from the Hub as `(split, row)`. The one function that needs the network.

    Raises:
        ResearchError: `datasets` is not installed, or the Hub cannot be reached.
    """
    hub = _hub(name)
    try:
        import datasets  # an extra, and slow to import
    except ImportError as error:
        raise ResearchError(f"a download needs `datasets` ({error}): pip install 'research-gym[data]'") from error
    try:
        tables = datasets.load_dataset(hub.repo, data_files=dict(hub.files), revision=hub.revision)
    except Exception as error:  # the Hub client raises OSError, httpx's errors and several of its own
        raise ResearchError(
            f"https://huggingface.co/datasets/{hub.repo} could not be read ({short(error, str)}); try again, or "
            f"fetch {' and '.join(hub.files.values())} by other means and run "
            f"`python -m research_env data add {name} FILE…`"
        ) from error
    for split in hub.files:
        for row in tables[split]:
            yield split, row


def on_the_hub() -> list[str]:
    """Names of the data sets that can be downloaded."""
    return [name for name, entry in DATASETS.items() if entry.hub]


def _hub(name: str) -> Hub:
    hub = registration(name).hub
    if hub is None:
        raise ConfigurationError(
            f"{name!r} is not on the Hub; install the files you have: python -m research_env data add {name} FILE…"
        )
    return hub
