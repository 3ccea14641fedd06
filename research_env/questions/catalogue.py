"""Every data set of this package, registered once.

The rest derives from this table: the environment ids (`ReSearch-<title>-v0`), the names that `dataset=` and
`index build --corpus` take, and what the `data` commands know. A further data set is one file with a function
`load(**options) -> research_env.types.Dataset`, and one entry here. Somebody else's data set needs no entry: it is
`dataset="module:load"`.
"""

# `import research_env` reads this file to register the ids: it must import nothing that takes time, not even pydantic.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hub:
    """Where the official files of a data set are on the Hugging Face Hub."""

    repo: str
    """Data set repository."""
    revision: str
    """Commit of `repo`, in full, so that every download is the same bytes."""
    files: Mapping[str, str]
    """Split -> path in `repo`."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What the package knows of one data set before anything is loaded."""

    title: str
    """Its name in the environment id, e.g. `"MuSiQue"`."""
    load: str
    """`module:function` that returns the `Dataset`; imported when first used."""
    row: str | None = None
    """`module:Model` of one official row, an `OfficialRow`; None for a data set that needs no files."""
    hub: Hub | None = None
    """Where `data download` finds the files; None where they come by `data add` alone."""


DATASETS: dict[str, Registration] = {
    "musique": Registration(
        title="MuSiQue",
        load="research_env.questions.musique:load",
        row="research_env.questions.musique:Row",
        # The authors publish a zip on Google Drive; these are its files. FlashRAG's rows have no such paragraphs.
        hub=Hub(
            repo="dgslibisey/MuSiQue",
            revision="c8f4f8c9465fb69d31a8eae894c3fd509c4ca321",
            files={"train": "musique_ans_v1.0_train.jsonl", "dev": "musique_ans_v1.0_dev.jsonl"},
        ),
    ),
    "synthetic": Registration(title="Synthetic", load="research_env.synthetic:load"),
}
"""Data set name -> registration, in the order in which the ids are listed."""


def loaders() -> dict[str, str]:
    """Data set name -> `module:function`: the table that `research_env.names` looks names up in."""
    return {name: entry.load for name, entry in DATASETS.items()}


def with_files() -> list[str]:
    """Names of the data sets that live in files on this machine."""
    return [name for name, entry in DATASETS.items() if entry.row]
