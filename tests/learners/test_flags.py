"""The command line: flags from fields, mistakes in one line, and nothing heavy loaded for either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from learners import flags
from learners.config import load_config

ROOT = Path(__file__).resolve().parents[2]


class Inner(BaseModel):
    """A section."""

    width: int = 1
    names: list[str] = []
    table: dict[str, int] = {}


class Model(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    steps: int = 1
    learning_rate: float | None = None
    table: dict[str, int] = {}
    choices: tuple[int, ...] | None = None
    on: bool = False
    either: int | list[int] = 3
    """100% sure."""
    inner: Inner = Inner()


def parser() -> flags.Parser:
    made = flags.Parser("prog")
    flags.add(made, Model, {}, {})
    return made


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ([], {}),
        (["--steps", "3", "--steps=4"], {"steps": "4"}),
        (["--learning-rate", "null"], {"learning_rate": None}),
        (["--on"], {"on": True}),
        (["--either", "[1, 2]"], {"either": [1, 2]}),
        (["--either", "4"], {"either": "4"}),
        (["--no-on"], {"on": False}),
        (["--table", '{"a": 1}', "--table", "b=2,c=x"], {"table": {"a": 1, "b": 2, "c": "x"}}),
        (["--table", '{"a": {"b": 1}}'], {"table": {"a": {"b": 1}}}),
        (["--choices", "[1, 2]", "--choices", "3"], {"choices": [1, 2, "3"]}),
        (["--inner.width", "5", "--inner", '{"width": 2, "names": ["a"]}'], {"inner": {"width": "5", "names": ["a"]}}),
        (["--inner.names", "a", "--inner.names", '{"b": 1}'], {"inner": {"names": ["a", {"b": 1}]}}),
        (["--inner.table", "a=1"], {"inner": {"table": {"a": 1}}}),
    ],
)
def test_what_is_given_and_nothing_else(line: list[str], given: dict[str, object]) -> None:
    assert parser().read(line) == given


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["--stepz", "3"], ["--stepz", "did you mean --steps?"]),
        (["--step=3"], ["--step;", "did you mean --steps?"]),  # no abbreviations
        (["--learning_rate", "3"], ["--learning_rate", "did you mean --learning-rate?"]),
        (["--width", "3"], ["did you mean --inner.width?"]),
        (["--inner.wdith", "3"], ["did you mean --inner.width?"]),
        (["-steps", "3"], ["did you mean --steps?"]),
        (["steps=3"], ["steps=3", "did you mean --steps?"]),
        (["--quite-different", "3"], ["--quite-different", "--help"]),
        (["3"], ["'3'", "--name value"]),
        (["--steps"], ["--steps", "value is missing"]),
        (["--steps", ""], ["--steps", "value is missing"]),
        (["--learning-rate="], ["--learning-rate", "value is missing"]),
        (["--on=1"], ["--on", "takes no value", "'1'", "--no-on"]),
        (["--table", "{bad"], ["--table '{bad'", "not JSON"]),
        (["--table", "{a:", "1}"], ["--table '{a:'", "not JSON"]),
        (["--table", "[1]"], ["--table '[1]'", "not an object"]),
        (["--table", '{"a": NaN}'], ["--table", "NaN"]),
        (["--inner", "3"], ["--inner '3'", "not an object"]),
        (["--choices", "[1"], ["--choices '[1'", "not JSON"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(line: list[str], named: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        parser().read(line)
    assert "\n" not in str(raised.value)
    assert [name for name in named if name not in str(raised.value)] == [], str(raised.value)


def test_the_help_can_hold_a_percent_sign() -> None:
    assert "100% sure. (default: 3)" in parser().format_help()


def test_a_flag_with_broken_json_is_not_mistaken_for_another() -> None:
    for flag in ("--env-kwargs", "--eval-env-kwargs", "--research.kwargs", "--engine", "--research.stages"):
        with pytest.raises(ValueError, match=rf"^{flag} '\{{bad': this is not JSON"):
            load_config(["--env-kwargs", '{"a": 1}', flag, "{bad", "--eval-env-kwargs", '{"b": 2}'])


def command(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, whose last line on standard error lists what heavy was imported."""
    code = (
        "import atexit, runpy, sys\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'matplotlib'}\n"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("module", ["learners.grpo", "learners.evaluate"])
def test_help_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    done = command(module, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"usage: python -m {module}" in done.stdout
    assert done.stderr.strip() == "heavy:"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--stepz", "3"], "error: unknown argument --stepz; did you mean --steps?"),
        (["--steps", "many"], "error: --steps many: give a whole number"),
        (["--steps"], "error: --steps: a value is missing; write --steps VALUE"),
        (["--engine.device", "gpu"], "error: --engine.device gpu: give 'cpu' or 'cuda'"),
        (["--config", "mine.toml"], "error: engine.thread = 2 in mine.toml: there is no such setting; "
                                    "did you mean engine.threads?"),
    ],
)  # fmt: skip
def test_the_real_command_says_one_line_and_imports_nothing_heavy(
    arguments: list[str], line: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("[engine]\nthread = 2\n")
    done = command("learners.grpo", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [line, "heavy:"]
