"""Whole runs, as a user starts them: Ray, vLLM and the trainer in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners import checkpoint
from research_env.questions import store

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 400  # seconds, of one command

# Questions of one hop, from the first step on.
ONE_HOP = ["--env-kwargs", '{"hops": [1]}']

# Enough to see a policy learn which fact a question asks for; `make train` goes on to more hops.
STEPS, PROMPTS, QUESTIONS = 10, 32, 100
LEARNING = [
    "--steps", str(STEPS), "--prompts", str(PROMPTS), "--warmup.steps", "100", "--eval-questions", str(QUESTIONS),
    *ONE_HOP,
]  # fmt: skip

# Runs that only have to run.
SMALL = [
    "--prompts", "4", "--group-size", "4", "--minibatches", "1", "--warmup.steps", "10",
    "--tiny.hidden", "64", "--tiny.layers", "2", "--tiny.heads", "2", "--tiny.feed-forward", "64",
    "--eval-questions", "4",
]  # fmt: skip


@dataclass
class Machine:
    """Starts commands that share one home, so one warm start, and can tell which processes come from them."""

    folder: Path
    mark: str = field(default_factory=lambda: f"research-test-{uuid4().hex}")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"RESEARCH_HOME": str(self.home), "RESEARCH_TEST_MARK": self.mark}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, module: str, *arguments: str) -> str:
        """Standard output of a command that has to succeed."""
        process = self.start(module, *arguments)
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{out}\n{err}"
        return out

    def survivors(self) -> list[psutil.Process]:
        """Processes that a command of ours has left behind; dying ones get five seconds."""
        for _ in range(50):
            found = []
            for process in psutil.process_iter():
                try:
                    if process.environ().get("RESEARCH_TEST_MARK") == self.mark:
                        found.append(process)
                except psutil.Error:
                    continue
            if not found:
                break
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("end-to-end"))
    yield machine
    for process in machine.survivors():
        process.kill()


@dataclass
class Finished:
    """A run that has come to its end."""

    folder: Path
    out: str

    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())

    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(machine: Machine) -> Finished:
    """The run of `LEARNING`."""
    out = machine.run("learners.grpo", "--runs", str(machine.runs), "--name", "whole", *LEARNING)
    return Finished(machine.runs / "whole", out)


def test_the_policy_learns_to_search(run: Finished) -> None:
    """Reinforcement learning alone: unseen questions about unseen entities, answered by searching and not by heart."""
    summary = run.summary()
    assert summary["em_after"]["1"] >= summary["em_before"]["1"] + 0.2, run.out
    assert summary["em_after_no_search"]["1"] <= 0.05
    assert 0.9 <= summary["searches_after"]["1"] <= 2.5


def test_the_summary_says_what_was_done(run: Finished) -> None:
    summary = run.summary()
    needed = {
        "em_before", "em_after", "em_after_no_search", "searches_before", "searches_after",
        "questions", "seconds", "corpus", "versions", "seed", "config",
    }  # fmt: skip
    assert needed - set(summary) == set()
    assert summary["questions"] == {"1": QUESTIONS}
    assert set(summary["em_before"]) == {"1"}
    assert {"torch", "transformers", "ray", "gymnasium"} <= set(summary["versions"])
    assert summary["config"]["prompts"] == PROMPTS
    assert summary["seed"] == 0
    assert summary["seconds"]["total"] > 0
    assert summary["episodes"] == {"retried": 0, "dropped": 0}


def test_a_run_leaves_its_files(run: Finished) -> None:
    present = {path.name for path in run.folder.iterdir()}
    assert {
        "summary.json", "metrics.jsonl", "curve.png", "episodes.jsonl", "transcripts_before.md",
        "transcripts_after.md", "tensorboard", "checkpoint",
    } <= present  # fmt: skip
    assert (run.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run.folder / "tensorboard").glob("events.out.tfevents.*"))
    assert (run.folder / "transcripts_after.md").read_text().count("golden answers") == 4
    episodes = [json.loads(line) for line in (run.folder / "episodes.jsonl").read_text().splitlines()]
    phases = [episode["phase"] for episode in episodes]
    assert {phase: phases.count(phase) for phase in phases} == dict.fromkeys(
        ("before", "after", "after_no_search"), QUESTIONS
    )
    questions = {phase: {e["info"]["question_id"] for e in episodes if e["phase"] == phase} for phase in phases}
    assert questions["before"] == questions["after"] == questions["after_no_search"]
    assert all("-test-" in question for question in questions["before"])


def test_the_last_line_is_the_folder(run: Finished) -> None:
    assert run.out.strip().splitlines()[-1] == str(run.folder)


def test_engine_and_trainer_agree(run: Finished) -> None:
    """Before its first update the trainer gives each sampled token the engine's probability, 1e-5 nats on average."""
    metrics = run.metrics()
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    assert metrics[0]["policy/engine_gap"] < 1e-5
    assert max(row["policy/engine_gap"] for row in metrics) < 1e-4, "weights did not arrive as they were sent"


def test_the_checkpoint_is_an_ordinary_model(run: Finished) -> None:
    model = AutoModelForCausalLM.from_pretrained(run.folder / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "checkpoint")
    ids = tokenizer("Who founded Varn?", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=5).shape[1] > ids.shape[1]


def test_a_finished_run_leaves_no_process(run: Finished, machine: Machine) -> None:
    assert machine.survivors() == []


def test_the_checkpoint_is_evaluated_on_another_world(run: Finished, machine: Machine, tmp_path: Path) -> None:
    arguments = [
        "--env-kwargs",
        '{"world_seed": 7, "hops": [1]}',
        "--questions",
        "6",
        "--json",
        str(tmp_path / "r.json"),
    ]
    machine.run("learners.evaluate", str(run.folder / "checkpoint"), *arguments)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["questions"] == {"1": 6}
    assert result["env_kwargs"]["world_seed"] == 7
    assert result["env_kwargs"]["split"] == "test"
    assert 0 <= result["em"]["1"] <= 1
    assert machine.survivors() == []


def interrupt(machine: Machine, arguments: list[str], steps: int, number: int) -> int:
    """Start a run, stop it with a signal once it has made `steps` steps, and return how many it saved."""
    folder = machine.runs / "stopped"
    process = machine.start("learners.grpo", "--runs", str(machine.runs), "--name", "stopped", *arguments)
    deadline = time.monotonic() + TIMEOUT
    while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to every process of the group
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert "--resume" in out
    assert machine.survivors() == []
    _, state = checkpoint.read_state(folder)
    assert state["step"] >= steps
    return int(state["step"])


def test_an_interrupted_run_is_resumed(machine: Machine) -> None:
    """Ctrl-C, or SIGTERM, during training saves a checkpoint; `--resume` goes on from there to the end."""
    first = interrupt(machine, [*SMALL, *ONE_HOP, "--steps", "500"], 3, signal.SIGINT)
    done = interrupt(machine, ["--resume"], first + 2, signal.SIGTERM)  # every other setting is the run's own
    _, state = checkpoint.read_state(machine.runs / "stopped")
    again = ["--runs", str(machine.runs), "--name", "stopped", "--steps", str(done + 2), "--resume"]
    out = machine.run("learners.grpo", *again)
    assert f"resuming after step {done}" in out
    finished = Finished(machine.runs / "stopped", out)
    assert [row["step"] for row in finished.metrics()] == list(range(1, done + 3))
    assert finished.summary()["em_before"] == state["results"]["em_before"]
    assert "em_after" in finished.summary()
    assert machine.survivors() == []


@pytest.mark.real_data
def test_three_steps_on_published_questions(machine: Machine, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuSiQue as published: passages of a hundred words and names that the tiny policy has never seen."""
    monkeypatch.setenv("RESEARCH_HOME", str(machine.home))
    store.add("musique", sorted((real_data / "musique").glob("*.jsonl")))
    arguments = [
        "--env", "research_env:ReSearch-MuSiQue-v0", "--steps", "3", *SMALL,
        "--env-kwargs", '{"top_k": 1, "instructions": "{question}\\n"}', "--eval-env-kwargs", '{"split": "dev"}',
    ]  # fmt: skip
    out = machine.run("learners.grpo", "--runs", str(machine.runs), "--name", "musique", *arguments)
    finished = Finished(machine.runs / "musique", out)
    assert len(finished.metrics()) == 3
    assert finished.metrics()[0]["policy/engine_gap"] < 1e-5
    assert set(finished.summary()["em_after"]) <= {"2", "3", "4"}
    assert machine.survivors() == []


def test_a_wrong_argument_ends_the_command_at_once(machine: Machine) -> None:
    process = machine.start("learners.grpo", "--env", "NoSuch-v0", "--runs", str(machine.runs))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "NoSuch" in err
