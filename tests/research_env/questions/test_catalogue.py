"""One registration a data set: what derives from it, and that it costs nothing to read."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from research_env.questions.base import OfficialRow, Splits
from research_env.questions.catalogue import DATASETS, loaders, with_files
from research_env.questions.store import SPLITS
from research_env.registration import ENVIRONMENTS
from research_env.types import Question

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_registered_is_there(name: str) -> None:
    entry = DATASETS[name]
    module, function = entry.load.split(":")
    assert callable(getattr(import_module(module), function))
    assert {"dataset": name} in ENVIRONMENTS.values()
    assert re.fullmatch(r"\w+", entry.title)
    if entry.row:
        module, model = entry.row.split(":")
        assert issubclass(getattr(import_module(module), model), OfficialRow)
    if entry.hub:
        assert entry.row, "what is downloaded must be checked"
        assert re.fullmatch("[0-9a-f]{40}", entry.hub.revision)
        assert set(entry.hub.files) <= set(SPLITS)


def test_what_derives_from_the_table() -> None:
    assert list(loaders()) == list(DATASETS) == ["musique", "synthetic"]
    assert with_files() == ["musique"]
    assert list(ENVIRONMENTS) == [f"ReSearch-{entry.title}-v0" for entry in DATASETS.values()]


def test_the_table_loads_nothing_heavy() -> None:
    """`import research_env` reads it, and so does every process that only registers the ids."""
    code = """if True:
        import sys, types
        sys.modules["research_env"] = package = types.ModuleType("research_env")
        package.__path__ = ["research_env"]
        import research_env.questions.catalogue
        assert not {"pydantic", "numpy", "gymnasium", "tantivy", "httpx"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_split_that_cannot_be_read_is_tried_again() -> None:
    errors = [OSError("not yet")]

    def read() -> list[Question]:
        if errors:
            raise errors.pop()
        return [Question("a", "Who?", ("I",), 1)]

    splits = Splits({"dev": read})
    with pytest.raises(OSError, match="not yet"):
        splits["dev"]
    assert [question.id for question in splits["dev"]] == ["a"]
    assert splits["dev"] is splits["dev"]


def test_splits_are_a_mapping_that_reads_nothing_before_it_must() -> None:
    splits = Splits({"train": lambda: pytest.fail("was read"), "dev": list})
    assert "train" in splits
    assert "test" not in splits
    assert list(splits) == ["train", "dev"]
    assert len(splits) == 2
    assert splits.get("test") is None
    assert splits["dev"] == []
