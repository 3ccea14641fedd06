"""`python -m research_env`: played as a person plays it, and what is said when something is wrong."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
from pathlib import Path

import pytest

from research_env.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
PLAY = ("play", "--env", "ReSearch-MuSiQue-v0", "--env-kwargs")


@pytest.fixture
def types(monkeypatch):
    """Make `input` give these lines, then end of file; an exception among them is raised."""

    def play(*lines: str | BaseException) -> None:
        left = iter(lines)

        def typed(prompt: str = "") -> str:
            line = next(left, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typed)

    return play


def question_for(seed: int) -> int:
    """Number of the train row of the small data that a seed asks."""
    import gymnasium as gym

    return int(gym.make("ReSearch-MuSiQue-v0").reset(seed=seed)[1]["question_id"].split("__")[1])


def test_a_whole_episode(types, musique_home, capsys):
    row = question_for(0)  # of two hops
    types(f"search Varn{row}a", f"search Varn{row}b guild", f"answer Varn{row}c")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert f"Who founded the founder of Varn{row}a?" in shown
    assert f"founded by Varn{row}b." in shown
    assert "reward 1   EM 1   F1 1.00   format ok" in shown
    assert f"golden answers: Varn{row}c | Varn{row}c the Elder" in shown
    assert f"hop 1: Who founded Varn{row}a? -> Varn{row}b (found by search 1)" in shown
    assert f"hop 2: Varn{row}b >> founded by -> Varn{row}c (found by search" in shown
    assert "\x1b[" not in shown  # not a terminal


def test_a_wrong_answer_shows_what_was_missed(types, musique_home, capsys):
    row = question_for(0)
    types("answer nobody")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert "reward 0   EM 0   F1 0.00" in shown
    assert "your answer:    nobody" in shown
    assert f"hop 1: Who founded Varn{row}a? -> Varn{row}b (not found)" in shown


def test_raw_turns_and_slips(types, musique_home, capsys):
    types(
        "what now?", "", "search", "answer ", "<think> hm </think> <search> Marsh </search>", "<answer> none </search>"
    )
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("search QUERY") == 5  # at the start and after each slip, which costs nothing
    assert "wetland" in shown
    assert "That turn was malformed: </search> without <search>." in shown
    assert "your answer:    (none)" in shown


def test_limits_are_explained(types, musique_home, capsys):
    types("search Varn0a", "search Varn0b")
    assert main([*PLAY, '{"max_searches": 1}']) == 0
    assert "The episode was cut off" in capsys.readouterr().out


def test_seeds_choose_questions(types, musique_home, capsys):
    shown = set()
    for seed in ("0", "1", "0"):
        types()
        assert main([*PLAY, "{}", "--seed", seed]) == 0
        shown.add(capsys.readouterr().out)
    assert len(shown) == 2


@pytest.mark.parametrize(("signal", "status"), [(EOFError(), 0), (KeyboardInterrupt(), 130)])
def test_leaving_is_quiet(types, signal, status, musique_home, capsys):
    types("search Varn0a", signal)
    assert main([*PLAY, "{}"]) == status
    shown = capsys.readouterr()
    assert "golden" not in shown.out
    assert shown.out.endswith("\n")
    assert shown.err == ""


def test_colours_on_a_terminal_but_nothing_that_steers_it(types, musique_home, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    types("search Varn0a", "answer x \x1b[2J\x07")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ReSearch-MuSique-v0"], ["known: ReSearch-MuSiQue-v0", "did you mean 'ReSearch-MuSiQue-v0'?"]),
        (["CartPole-v1"], ["'CartPole-v1' is unknown; known: ReSearch-MuSiQue-v0, ReSearch-Synthetic-v0"]),
        (["ReSearch-MuSiQue-v0"], ["data download musique"]),
        (["ReSearch-Synthetic-v0", "--env-kwargs", "{top_k: 3}"], ["'{top_k: 3}' is not JSON"]),
        (["ReSearch-Synthetic-v0", "--env-kwargs", "3"], ["'3' is not a JSON object"]),
        (["ReSearch-Synthetic-v0", "--env-kwargs", '{"topk": 3}'], ["topk=3", "did you mean 'top_k'?"]),
        (["ReSearch-Synthetic-v0", "--seed", "-1"], ["--seed -1"]),
    ],
)
def test_errors_are_one_line(arguments, words, capsys):
    assert main(["play", "--env", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    for word in words:
        assert word in shown.err


@pytest.mark.parametrize("arguments", [[], ["ply"], ["play"], ["play", "--env", "x", "--seed", "one"]])
def test_wrong_usage_is_argparses_affair(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert "usage: python -m research_env" in capsys.readouterr().err


def test_data_verbs_are_there(capsys):
    assert main(["data", "list"]) == 0
    assert "no data sets in" in capsys.readouterr().out
    assert main(["data", "download", "musiqe"]) == 2
    assert "did you mean 'musique'?" in capsys.readouterr().err


def test_as_a_program_with_input_that_is_no_utf8(research_home):
    command = [sys.executable, "-m", "research_env", "play", "--env", "research_env:ReSearch-Synthetic-v0"]
    done = subprocess.run(
        command, cwd=ROOT, input=b"search \xff Mount\nanswer \xe9\n", capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert b"golden answers:" in done.stdout
    assert done.stderr == b""


def test_streams_that_cannot_be_reconfigured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["data", "list"]) == 0
    assert capsys.readouterr().err == ""
