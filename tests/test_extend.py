"""Every example of `docs/extend.md` runs as it stands, in one file outside the project."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = {
    "my_reward.py": 10, "my_tool.py": 30, "my_protocol.py": 40, "my_retriever.py": 20, "my_data.py": 30,
    "my_algorithm.py": 40, "my_engine.py": 30,
}  # fmt: skip
"""File -> lines of code that it may have."""
SYNTHETIC = "research_env:ReSearch-Synthetic-v0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The examples as files in a folder of their own, importable."""
    folder = tmp_path_factory.mktemp("stranger")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/extend.md").read_text("utf-8"), re.DOTALL):
        name = block.splitlines()[0].removeprefix("# ")
        (folder / name).write_text(block, "utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in LINES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_examples_are_short(folder: Path) -> None:
    assert {path.name for path in folder.glob("*.py")} == set(LINES)
    for name, most in LINES.items():
        code = [line for line in (folder / name).read_text("utf-8").splitlines()[1:] if line.strip()]
        assert len(code) <= most, f"{name} has {len(code)} lines"


def test_a_reward(folder: Path) -> None:
    env = gym.make(SYNTHETIC, reward="my_reward:short_and_right", hops=[1])
    _, info = env.reset(seed=0)
    question = env.unwrapped.find_question(info["question_id"])
    _, reward, terminated, _, info = env.step(env.unwrapped.protocol.answer_turn("", question.answers[0]))
    assert terminated
    assert reward == pytest.approx(1 - 0.01 * len(question.answers[0].split()))
    assert info["reward_parts"] == {"turn": 0.0, "outcome": reward}


def test_a_tool(folder: Path) -> None:
    env = gym.make(SYNTHETIC, tools=["search", "my_tool:Calculator"], max_searches=1)
    prompt, _ = env.reset(seed=0)
    assert "<calculator> expression </calculator>" in prompt
    assert [tool["function"]["name"] for tool in env.unwrapped.metadata["tools"]] == ["search", "calculator"]
    assert "</calculator>" in env.unwrapped.metadata["stop"]

    def use(expression: str) -> str:
        text, _, terminated, truncated, info = env.step(f"<think> x </think> <calculator> {expression} </calculator>")
        assert not terminated
        assert not truncated
        assert (info["action"], info["searches"], info["status"]) == ("calculator", 0, "running")
        return text

    assert use("12 * (7 + 0.5)") == " <result>\n90\n</result>"
    assert use("__import__('os')") == " <result>\nThat is no expression of numbers.\n</result>"
    text, *_, info = env.step("<think> x </think> <search> Amber </search>")
    assert info["searches"] == 1
    assert text.startswith(" <result>\n")


def test_a_protocol(folder: Path) -> None:
    env = gym.make(SYNTHETIC, protocol="my_protocol:Brackets", hops=[1])
    prompt, info = env.reset(seed=0)
    question = env.unwrapped.find_question(info["question_id"])
    assert prompt.endswith(f"Question: {question.text}\n")
    text, *_ = env.step(f"I look it up. search[{question.decomposition[0].question}]")
    assert text.startswith("\nObservation: ")
    assert question.answers[0] in text
    *_, info = env.step(f"It is finish[{question.answers[0]}]")
    assert (info["em"], info["format_ok"]) == (1.0, True)
    env.action_space.seed(0)
    env.reset(seed=1)
    assert env.step(env.action_space.sample())[4]["malformed"] is None


def test_a_retriever(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("The moon is made of rock.\nThe sea is salty.\n")
    env = gym.make(SYNTHETIC, corpus=f"my_retriever:Lines://{tmp_path / 'facts.txt'}")
    _, info = env.reset(seed=0)
    assert info["corpus"] == {"name": "lines", "passages": 2, "hash": None}
    text, *_, info = env.step("<think> x </think> <search> salty sea </search>")
    assert "The sea is salty." in text
    assert info["passages"][0]["id"] == "1"


def test_a_data_set(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"question": f"Who keeps lighthouse {n}?", "answers": [f"Keeper {n}"],
         "paragraphs": [[f"Lighthouse {n}", f"Lighthouse {n} is kept by Keeper {n}."]]} for n in range(4)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"dataset": "my_data:load", "file": str(tmp_path / "rows.jsonl"), "split": "dev"}
    env = gym.make("research_env:ReSearch-MuSiQue-v0", **settings)
    prompt, info = env.reset(seed=0)
    assert info["corpus"]["passages"] == 4
    number = re.search(r"lighthouse (\d)", prompt)
    assert number
    assert number[1] in "13"
    text, *_ = env.step(f"<think> x </think> <search> lighthouse {number[1]} </search>")
    assert f"Keeper {number[1]}" in text


SMALL = [
    "--steps", "2", "--prompts", "2", "--group-size", "2", "--minibatches", "1", "--warmup.steps", "2",
    "--eval-questions", "0",
    "--tiny.hidden", "64", "--tiny.layers", "2", "--tiny.heads", "2", "--tiny.feed-forward", "64",
]  # fmt: skip


def test_an_algorithm_and_an_engine(folder: Path, tmp_path: Path) -> None:
    """Two steps of a run without Ray, in a process of its own that finds the files by PYTHONPATH."""
    command = [
        sys.executable, "-m", "learners.grpo", "--algorithm", "my_algorithm:LeaveOneOut",
        "--engine.kind", "my_engine:OneByOne", "--cluster", "local", "--runs", str(tmp_path), "--name", "stranger",
        *SMALL,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "stranger" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[0]["policy/engine_gap"] < 1e-5
    assert rows[0]["policy/ratio"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"reward": "my_reward:Outcome"}, "reward='my_reward:Outcome'"),
        ({"reward": "my_reward:absent"}, "absent"),
        ({"tools": ["search", "my_tool:SIGNS"]}, "dict"),
        ({"tools": ["my_protocol:Brackets"]}, "lacks: name, description, parameters, run"),
        ({"protocol": "my_tool:Calculator"}, "lacks: stop, instructions"),
        ({"protocol": "my_retriever:Lines"}, "cannot be called with"),
        ({"protocol": "no_such_module:Thing"}, "no_such_module"),
        ({"corpus": "my_protocol:Brackets://x"}, "cannot be called with"),
        ({"dataset": "my_reward:short_and_right", "outcome": 1}, "my_reward:short_and_right"),
    ],
    ids=str,
)
def test_a_wrong_plug_in_is_one_line(folder: Path, settings: dict, missing: str) -> None:
    from research_env.errors import ResearchError

    with pytest.raises(ResearchError) as error:
        gym.make(SYNTHETIC, **settings)
    assert missing in str(error.value)
    assert "\n" not in str(error.value)


def test_the_examples_import_nothing_of_each_other(folder: Path) -> None:
    for name in LINES:
        importlib.import_module(name.removesuffix(".py"))
