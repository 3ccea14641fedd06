"""`docs/environment.md` says what is so: its table of `info` is complete, and its loops run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from research_env.info import Info

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/environment.md").read_text("utf-8")


def keys(text: str) -> set[str]:
    """Names in the first cell of each row of the tables of a text."""
    return {name for row in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_the_tables_hold_every_key_of_info() -> None:
    always, _, at_the_end = PAGE.partition("| key at the end |")
    assert keys(always) == Info.__required_keys__
    assert keys(at_the_end) == Info.__optional_keys__


def test_the_readme_names_every_key_of_info() -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("`info` has")[2].partition("\n## ")[0]
    assert keys(section) == Info.__required_keys__ | Info.__optional_keys__


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_runs(block: str) -> None:
    names: dict[str, Any] = {"asked": []}
    exec(block.replace("    # … step", "    asked.append(info['question_id'])\n    # … step"), names)
    if "env" in names:
        assert len(set(names["asked"])) == len(names["asked"]) == len(names["env"].unwrapped) == 80
    else:
        assert len(set(names["infos"]["question_id"])) == 4
