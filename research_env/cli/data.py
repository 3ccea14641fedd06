"""`python -m research_env data …`: get data sets onto this machine and see which are there."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from research_env.files import home
from research_env.questions import hub, store
from research_env.questions.catalogue import with_files

if TYPE_CHECKING:  # argparse has no public name for what `add_subparsers` returns
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `data` with its own verbs. Each sets `run`, a function of the parsed arguments to an exit status.

    `run` raises ResearchError; the caller prints it.
    """
    data = subparsers.add_parser("data", help="get data sets onto this machine", description=__doc__)
    verbs = data.add_subparsers(metavar="VERB", required=True)

    add = verbs.add_parser("add", help="install files in the official format of a data set")
    add.add_argument("name", metavar="NAME", help=f"data set: {', '.join(with_files())}")
    add.add_argument("files", metavar="FILE", nargs="+", help="official file: JSON Lines, .gz or not")
    add.add_argument("--split", help=f"{', '.join(store.SPLITS)}; default: read from each file's name")
    add.set_defaults(run=_add)

    download = verbs.add_parser("download", help="download a data set from the Hugging Face Hub")
    download.add_argument("name", metavar="NAME", help=f"data set: {', '.join(hub.on_the_hub())}")
    download.set_defaults(run=_download)

    listing = verbs.add_parser("list", help="show the data sets on this machine")
    listing.set_defaults(run=_list)


def _add(arguments: argparse.Namespace) -> int:
    return _show(store.add(arguments.name, arguments.files, arguments.split))


def _download(arguments: argparse.Namespace) -> int:
    return _show(hub.download(arguments.name))


def _list(arguments: argparse.Namespace) -> int:
    installed = store.listing()
    if not installed:
        print(f"no data sets in {home() / 'data'}; get one: python -m research_env data download NAME")
        print(f"known: {', '.join(with_files())}")
    return _show(installed)


def _show(installed: Iterable[store.Installed]) -> int:
    for part in installed:
        left_out = f" ({part.unanswerable:,} unanswerable left out)" if part.unanswerable else ""
        print(f"{part.name} {part.split}: {part.questions:,} questions{left_out}, {part.path}")
    return 0
