"""The verbs of `python -m research_env data`."""

import argparse
import subprocess
import sys

import pytest

from research_env.cli import data
from research_env.errors import ConfigurationError, DataInvalid
from research_env.questions import hub, store


def run(*words):
    parser = argparse.ArgumentParser(prog="research_env")
    data.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["data", *map(str, words)])
    return arguments.run(arguments)


def test_add_says_what_is_there_now(tmp_path, musique_rows, research_home, capsys, write):
    musique_rows["dev"][0]["answerable"] = False
    files = [write(tmp_path / f"musique_{split}.jsonl", rows) for split, rows in musique_rows.items()]
    assert run("add", "musique", *files) == 0
    folder = research_home / "data" / "musique"
    expected = (
        f"musique train: 12 questions, {folder / 'train.jsonl'}\n"
        f"musique dev: 5 questions (1 unanswerable left out), {folder / 'dev.jsonl'}\n"
    )
    assert capsys.readouterr().out == expected
    assert run("list") == 0
    assert capsys.readouterr().out == expected


def test_add_takes_a_split(tmp_path, musique_rows, capsys, write):
    file = write(tmp_path / "rows.jsonl", musique_rows["dev"])
    assert run("add", "musique", file, "--split", "train") == 0
    assert list(store.find("musique")) == ["train"]


def test_failures_are_left_to_the_caller(tmp_path, write):
    with pytest.raises(ConfigurationError, match="did you mean 'musique'"):
        run("add", "musiqe", tmp_path / "train.jsonl")
    with pytest.raises(ConfigurationError, match="known: musique"):
        run("download", "hotpot")
    with pytest.raises(DataInvalid):
        run("add", "musique", write(tmp_path / "train.jsonl", [{}]))


def test_download_shows_what_came(monkeypatch, musique_rows, capsys):
    monkeypatch.setattr(hub, "fetch", lambda name: (("dev", row) for row in musique_rows["dev"]))
    assert run("download", "musique") == 0
    assert capsys.readouterr().out.startswith("musique dev: 6 questions, ")


def test_an_empty_list_says_how_to_begin(research_home, capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    assert str(research_home / "data") in out
    assert "python -m research_env data download NAME" in out
    assert "known: musique" in out


@pytest.mark.parametrize("words", [(), ("add",), ("add", "musique"), ("download",), ("frob",)])
def test_incomplete_commands_are_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_command_line_loads_nothing_heavy():
    code = """if True:
        import sys, research_env.cli.data, research_env.questions.musique
        heavy = {"torch", "ray", "vllm", "datasets", "transformers", "pyarrow"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", code], check=True)
