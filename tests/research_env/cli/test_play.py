"""`python -m research_env`: played as a person plays it, and what is said when something is wrong."""

from __future__ import annotations

import builtins
import io
import os
import pty
import select
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


def test_settings_of_gym_make_itself_may_be_given(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: (_ for _ in ()).throw(EOFError))
    given = '{"disable_env_checker": true, "num_entities": 100}'
    assert main(["play", "--env", "ReSearch-Synthetic-v0", "--env-kwargs", given]) == 0
    assert "You answered 0 of 1 questions" in capsys.readouterr().out


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


def test_over_another_corpus_nobody_knows_what_was_found(types, musique_home, tmp_path, capsys):
    (tmp_path / "other.jsonl").write_text('{"id": "1", "contents": "Ada\\nAda is a moon."}\n')
    types("answer nobody")
    assert main([*PLAY, f'{{"corpus": "{tmp_path / "other.jsonl"}"}}']) == 0
    shown = capsys.readouterr().out
    assert "which search found what is unknown" in shown
    assert "not found" not in shown


def test_slips_cost_nothing(types, musique_home, capsys):
    types("what now?", "", "search", "answer ", "<think> hm </think> <search> Marsh </search>")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("search QUERY") == 5  # at the start and after each slip
    assert "look something up: <think> … </think> <search> QUERY </search>" in shown
    assert r"answer, which ends the episode: <think> … </think> <answer> \boxed{ TEXT } </answer>" in shown
    assert "wetland" in shown
    assert "3 searches and 9 turns left" in shown


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        ("<think> hm </think> <serach> Marsh </serach>", "no <search>…</search> or <answer>…</answer>"),
        ("<answer> none </search>", "</search> without <search>"),
        ("<search> Marsh", "no <search>…</search> or <answer>…</answer>"),
        ("<think> hm </think> <search> x </search> <result> y </result>", "what follows its action would be dropped"),
        ("<think> hm </think> <result> y </result> <search> x </search>", "wrote its own <result>"),
        ("<thnik> hm </thnik> <search> Marsh </search>", "not quite the form"),
        ("<think> hm </think> <answer> Ada </answer>", ""),
    ],
)
def test_a_slip_in_a_tag_is_told_before_the_turn_is_sent(turn, told, types, musique_home, capsys):
    row = question_for(0)
    types(turn, f"answer Varn{row}c")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert "Not sent, for it" in shown or "Not sent, for what" in shown
    assert told in shown
    assert "reward 1   EM 1" in shown, "it has not ended the episode"


def test_enter_sends_what_was_held_back(types, musique_home, capsys):
    types("<answer> none </search>", "")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert "That turn was malformed: </search> without <search>." in shown
    assert "your answer:    (none)" in shown
    assert "You answered 0 of 1 questions, 0 of them right." in shown


def test_another_turn_in_place_of_the_one_that_was_held_back(types, musique_home, capsys):
    types("<answer> none </search>", "search Varn0a", "", "answer x")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert "That turn was malformed" not in shown
    assert "You answered 1 of 1 questions, 0 of them right." in shown


@pytest.mark.parametrize(
    ("settings", "turns", "said"),
    [
        ('{"max_searches": 1}', ["search Varn0a", "search Varn0b"], "it had used its 1 search."),
        ('{"max_searches": 0}', ["search Varn0a"], "it had used its 0 searches."),
        ('{"max_turns": 2}', ["search Varn0a", "search Varn0b"], "turn 2 is the last, and it did not answer."),
    ],
)
def test_limits_are_explained(settings, turns, said, types, musique_home, capsys):
    types(*turns)
    assert main([*PLAY, settings]) == 0
    shown = capsys.readouterr().out
    assert f"The episode was cut off: {said}" in shown
    assert ("1 turn left, so this turn must answer" in shown) == ("max_turns" in settings)


def test_question_after_question(types, musique_home, capsys):
    rows = [question_for(seed) for seed in range(4)]
    types(f"answer Varn{rows[0]}c", "", "answer nobody", "next", "next", "", f"answer Varn{rows[3]}c")
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Enter: the next question.") == 4
    assert shown.count("golden answers: ") == 4
    assert shown.endswith("You answered 3 of 4 questions, 2 of them right.\n")


def test_seeds_choose_questions(types, musique_home, capsys):
    shown = set()
    for seed in ("0", "1", "0"):
        types()
        assert main([*PLAY, "{}", "--seed", seed]) == 0
        shown.add(capsys.readouterr().out)
    assert len(shown) == 2


def test_leaving_shows_the_answer(types, musique_home, capsys):
    row = question_for(0)
    types("search Varn0a", EOFError())
    assert main([*PLAY, "{}"]) == 0
    shown = capsys.readouterr()
    assert f"golden answers: Varn{row}c | Varn{row}c the Elder\n" in shown.out
    assert shown.out.endswith("You answered 0 of 1 questions, 0 of them right.\n")
    assert shown.err == ""


@pytest.mark.parametrize("turns", [["search Varn0a"], ["answer x"], []])
def test_an_interrupt_is_quiet(turns, types, musique_home, capsys):
    types(*turns, KeyboardInterrupt())
    assert main([*PLAY, "{}"]) == 130
    shown = capsys.readouterr()
    assert "questions" not in shown.out
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
        (["CartPol-v1"], ["'CartPol-v1' is unknown; known: ReSearch-MuSiQue-v0", "did you mean 'CartPole-v1'?"]),
        (["CartPole-v1"], ["'CartPole-v1' is a CartPoleEnv; play needs a ReSearchEnv: ReSearch-MuSiQue-v0"]),
        (["ReSearch-MuSiQue-v7"], ["'ReSearch-MuSiQue-v7' is unknown", "did you mean 'ReSearch-MuSiQue-v0'?"]),
        (["nowhere.nothing:Own-v0"], ["'nowhere.nothing:Own-v0' cannot be made (ModuleNotFoundError"]),
        (["what is this?"], ["'what is this?' cannot be made"]),
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


OWN = """
import gymnasium as gym
from research_env.env import ReSearchEnv

class Bonus(gym.RewardWrapper):
    def reward(self, reward):
        return reward + 41

def make(**settings):
    return Bonus(ReSearchEnv(dataset="synthetic", **settings))

def broken(**settings):
    raise RuntimeError("two\\nlines")

gym.register("Own-v0", entry_point=make)
gym.register("Broken-v0", entry_point=broken)
"""


def test_an_environment_of_ones_own(types, research_home, tmp_path, monkeypatch, capsys):
    """Registered by its module, and with a wrapper, which stays around it."""
    (tmp_path / "own_environment.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    types("answer nobody")
    assert main(["play", "--env", "own_environment:Own-v0", "--env-kwargs", '{"max_turns": 3}']) == 0
    shown = capsys.readouterr().out
    assert "4 searches and 3 turns left" in shown
    assert "reward 41   EM 0" in shown
    assert main(["play", "--env", "own_environment:Broken-v0"]) == 2
    assert "'own_environment:Broken-v0' cannot be made (RuntimeError: two lines)" in capsys.readouterr().err


def test_in_a_terminal_lines_are_edited_and_remembered(research_home):
    """Arrow up brings the last line back, Ctrl-A goes to its beginning, Ctrl-D leaves."""
    here, there = pty.openpty()
    command = [sys.executable, "-m", "research_env", "play", "--env", "ReSearch-Synthetic-v0"]
    # Without this the terminal would be asked where its cursor is; nobody answers here.
    environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=there, stdout=there, stderr=there)
    os.close(there)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([here], [], [], 60)[0], shown
            shown += os.read(here, 1 << 16)
        shown = shown.partition(text)[2]

    def types_at_the_prompt(keys: bytes) -> None:
        until(b"\x1b[?25h")  # the cursor is shown: the prompt is there, and what is typed is no longer echoed
        os.write(here, keys)

    try:
        until(b"10 turns left")
        types_at_the_prompt(b"answer nobody\r")
        until(b"the next question")
        types_at_the_prompt(b"\r")
        until(b"10 turns left")
        up, right = b"\x1b[A", b"\x1b[C"
        types_at_the_prompt(up + b"\x01" + right * len("answer ") + b"not \r")
        until(b"your answer:    not nobody")
        until(b"the next question")
        types_at_the_prompt(b"\x04")
        until(b"You answered 2 of 2 questions, 0 of them right.")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(here)


def test_streams_that_cannot_be_reconfigured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["data", "list"]) == 0
    assert capsys.readouterr().err == ""
