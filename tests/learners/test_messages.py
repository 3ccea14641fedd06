"""A wrong setting is told in plain words, wherever it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from learners.config import Config, load_config, resolve

WRONG: tuple[Any, ...] = (
    None,
    True,
    "x",
    "",
    "1.5",
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    [],
    [1],
    {},
    {"a": 1},
)
PYDANTIC = re.compile(r"[Ii]nput|valid|permitted|instance|parse|JSON schema|tuple|dict|NoneType")


def places(model: BaseModel, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in type(model).model_fields:
        yield (*prefix, name)
        if isinstance(value := getattr(model, name), BaseModel):
            yield from places(value, (*prefix, name))


@pytest.mark.parametrize("place", list(places(Config())), ids=".".join)
def test_no_setting_speaks_of_pydantic(place: tuple[str, ...]) -> None:
    if place[0] in ("preset", "config", "algorithm", "resume"):  # they are read before the settings are checked
        return
    refused = 0
    for value in WRONG:
        given: Any = value
        for part in reversed(place):
            given = {part: given}
        try:
            resolve(given)
        except ValueError as error:
            refused += 1
            message = str(error)
            assert "\n" not in message
            assert ".".join(place) in message or "--" + place[-1].replace("_", "-") in message, message
            # What was given may look like anything.
            assert not PYDANTIC.search(message.partition(": ")[2]), message
    assert refused, f"{place} takes whatever it is given"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "many"], "--steps many: give a whole number"),
        (["--steps", "2.5"], "--steps 2.5: give a whole number"),
        (["--steps", "null"], "--steps null: give a whole number"),
        (["--prompts", "0"], "--prompts 0: give 1 or more"),
        (["--temperature", "3"], "--temperature 3: give 2 or less"),
        (["--temperature", "0"], "--temperature 0: give more than 0"),
        (["--trainer.learning-rate", "inf"], "--trainer.learning-rate inf: give a finite number"),
        (["--tiny.heads", "3"], "--tiny.heads 3: give a multiple of 2"),
        (["--cluster", "slurm"], "--cluster slurm: give 'ray' or 'local'"),
        (["--engine", '{"thread": 3}'], "engine.thread = 3: there is no such setting; did you mean engine.threads?"),
        (["--research.stages", '[{"until": 1}]'], "research.stages.0.kwargs: it is missing, and has no default"),
        (["--minibatches", "9", "--prompts", "4"],
         "each update needs a question, and --prompts 4 is less than --minibatches 9; lower --minibatches"),
    ],
)  # fmt: skip
def test_the_flag_the_value_and_the_fix(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        load_config(arguments)
    assert str(raised.value) == message


def test_the_file_is_named_where_it_is_to_blame(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('prompts = "many"\n')
    with pytest.raises(ValueError, match=rf"^prompts = 'many' in {file}: give a whole number$"):
        load_config(["--config", str(file)])
    with pytest.raises(ValueError, match=rf"^prompts = 'many' in the preset {file}: give a whole number$"):
        load_config(["--preset", str(file)])
    with pytest.raises(ValueError, match=r"^--prompts none: give a whole number$"):
        load_config(["--config", str(file), "--prompts", "none"])
    file.write_text("max_length = 3\n")
    with pytest.raises(ValueError, match=r"max_length = 3 in .*; did you mean engine\.max_length\?$"):
        load_config(["--config", str(file)])
    file.write_text('config = "other.toml"\n')
    with pytest.raises(ValueError, match="a file cannot name another one"):
        load_config(["--config", str(file)])


def test_a_file_may_name_its_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "qwen2.5-7b"\nsteps = 3\n')
    config = load_config(["--config", str(file)])
    assert (config.preset, config.model, config.steps) == ("qwen2.5-7b", "Qwen/Qwen2.5-7B", 3)
    assert json.loads(load_config(["--config", str(file), "--preset", "tiny-cpu"]).model_dump_json())["model"] == "tiny"
