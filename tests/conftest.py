"""Fixtures for all tests: a home of their own, small data in the official formats, and the real samples."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from research_env import loading
from research_env.questions import store

Rows = dict[str, list[dict[str, Any]]]


def pytest_configure(config: pytest.Config) -> None:
    # A script's background jobs ignore SIGINT, and so would every process that a test starts and stops. What is caught
    # here is not inherited by them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "real_data: needs the published data sets on disk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the real data, so that `-m "not real_data"` leaves out all of them."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)


@pytest.fixture(autouse=True)
def research_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `$RESEARCH_HOME` for each test, so that none sees or changes the user's own."""
    home = tmp_path_factory.mktemp("research-home")
    monkeypatch.setenv("RESEARCH_HOME", str(home))
    return home


@pytest.fixture
def real_data() -> Path:
    """Folder of the published samples: `$RESEARCH_TEST_DATA`, or `shared/data` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RESEARCH_TEST_DATA") or beside)
    if not (folder / "musique").is_dir():
        pytest.skip(f"no published data sets in {folder}: set RESEARCH_TEST_DATA to the folder that has musique/")
    return folder


@pytest.fixture
def musique_rows() -> Rows:
    """Split -> rows in the official MuSiQue format, made anew for each test: 12 train, 6 dev, of 2, 3, 4, 2, … hops.

    Row 0 of train asks "Who founded the founder of Varn0a?" and is answered by "Varn0c".
    """
    return {
        "train": [_musique_row(number, 2 + number % 3) for number in range(12)],
        "dev": [_musique_row(number, 2 + number % 3) for number in range(99, 105)],
    }


@pytest.fixture
def write() -> Callable[[Path, Sequence[Any]], Path]:
    """Writes rows as JSON lines and returns the file's path."""

    def write(path: Path, rows: Sequence[Any]) -> Path:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def leftovers() -> Callable[[Path], list[str]]:
    """Names of the files in a home, but for locks."""
    return lambda home: sorted(path.name for path in home.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.fixture
def musique_home(
    research_home: Path,
    musique_rows: Rows,
    write: Callable[[Path, Sequence[Any]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """`$RESEARCH_HOME` with `musique_rows` installed."""
    folder = tmp_path_factory.mktemp("musique-files")
    store.add("musique", [write(folder / f"{split}.jsonl", rows) for split, rows in musique_rows.items()])
    _forget_loaded_data()
    yield research_home
    _forget_loaded_data()


def _forget_loaded_data() -> None:
    """Environments share what is loaded for the life of the process, but each test has another home."""
    loading.forget()


def _musique_row(number: int, hops: int) -> dict[str, Any]:
    names = [f"Varn{number}{letter}" for letter in "abcde"[: hops + 1]]
    gold = [
        (here, f"{here} is a guild of the northern plain. It was founded by {there}.")
        for here, there in pairwise(names)
    ]
    # Distractors are drawn from 40 that all rows share, so that the pool has something to de-duplicate.
    others = [(number * 7 + i) % 40 for i in range(20 - hops)]
    distractors = [
        (f"Marsh {i}", f"Marsh {i} is a wetland of {i + 3} square miles, known for its herons.") for i in others
    ]
    paragraphs = [*distractors[:5], *gold, *distractors[5:]]
    inner = " of the founder" * (hops - 2)
    return {
        "id": f"{hops}hop__{number}",
        "paragraphs": [
            {"idx": i, "title": title, "paragraph_text": text, "is_supporting": (title, text) in gold}
            for i, (title, text) in enumerate(paragraphs)
        ],
        "question": f"Who founded the founder{inner} of {names[0]}?",
        "question_decomposition": [
            {
                "id": number * 10 + i,
                "question": f"Who founded {names[0]}?" if i == 0 else f"#{i} >> founded by",
                "answer": names[i + 1],
                "paragraph_support_idx": 5 + i,
            }
            for i in range(hops)
        ],
        "answer": names[-1],
        "answer_aliases": [f"{names[-1]} the Elder"],
        "answerable": True,
    }
