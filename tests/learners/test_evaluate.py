"""An evaluation plays as training did, unless it is told otherwise, and says where it differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learners import evaluate
from learners.config import Config, load_config
from learners.environment import EnvironmentConfig
from learners.rollout import Rollout

Trained = Callable[..., Path]


@pytest.fixture
def trained(tmp_path: Path, tiny_folder: Path) -> Trained:
    """Makes the checkpoint of a run with these arguments."""

    def trained(*arguments: str, **state: Any) -> Path:
        config = load_config(["--engine.max-length", "200", "--max-turn-tokens", "9", *arguments])
        folder = tmp_path / "runs" / "one" / "checkpoint"
        shutil.copytree(tiny_folder, folder)
        saved = config.model_dump(mode="json") | {"resume": True, "name": "one"}
        (folder / "state.json").write_text(json.dumps({"step": 2, "config": saved} | state))
        return folder

    return trained


def configured(place: Path, *arguments: str) -> tuple[Config, list[str]]:
    _, given = evaluate.read([str(place), *arguments])
    return evaluate.configure(evaluate.find(str(place)), given)


ARGUMENTS = [
    "--env-kwargs", '{"instructions": "Q: {question}\\n", "top_k": 3}', "--renderer", "templated",
    "--engine.dtype", "bfloat16", "--search-cost", "0.1",
]  # fmt: skip


@pytest.mark.parametrize("more", [
    (), ("--env", "research_env:ReSearch-Synthetic-v0"), ("--env", "ReSearch-Synthetic-v0"), ("--env", "research"),
], ids=" ".join)  # fmt: skip
def test_everything_is_as_in_training(more: tuple[str, ...], trained: Trained) -> None:
    place = trained(*ARGUMENTS)
    config, notes = configured(place, *more)
    assert notes == []
    began = load_config(ARGUMENTS).environment()
    assert config.environment() == began
    assert config.environment().eval_kwargs["instructions"] == "Q: {question}\n"
    assert (config.renderer, config.engine.dtype, config.engine.max_length) == ("templated", "bfloat16", 200)
    assert (config.max_turn_tokens, config.model, config.resume) == (9, str(place), False)


def test_an_environment_of_ones_own_keeps_its_arguments(trained: Trained) -> None:
    place = trained("--env", "mine:My-v0", "--env-kwargs", '{"a": 1}', "--eval-env-kwargs", '{"b": 2}')
    for more in ([], ["--env", "mine:My-v0"], ["--env", "research"]):
        config, notes = configured(place, *more)
        assert (config.environment().id, config.environment().eval_kwargs) == ("mine:My-v0", {"a": 1, "b": 2})
        assert notes == []
    config, notes = configured(place, "--env", "mine:Other-v0", "--env-kwargs", "c=3")
    assert (config.environment().id, config.environment().eval_kwargs) == ("mine:Other-v0", {"c": 3})
    assert {"env 'mine:My-v0' -> 'mine:Other-v0'", "a 1 -> not given", "c not given -> 3"} <= {
        note.removeprefix("differs from training: ") for note in notes
    }


def test_what_is_given_overrides_and_is_told(trained: Trained) -> None:
    line = ["--env-kwargs", '{"top_k": 5, "world_seed": 7}', "--max-turn-tokens", "20", "--engine.max-length", "100"]
    config, notes = configured(trained(), *line, "--engine.kind", "transformers")
    assert (config.environment().eval_kwargs["top_k"], config.engine.kind) == (5, "transformers")
    assert [note.removeprefix("differs from training: ") for note in notes] == [
        "top_k 1 -> 5", "max_turn_tokens 9 -> 20", "engine.max_length 200 -> 100", "world_seed not given -> 7",
    ]  # fmt: skip


def test_a_preset_takes_the_place_of_the_settings(trained: Trained) -> None:
    config, notes = configured(trained(), "--preset", "qwen2.5-7b")
    assert config.environment() == load_config(["--preset", "qwen2.5-7b"]).environment()
    assert any("max_turn_tokens 9 -> 8192" in note for note in notes)
    assert any("-> 'research_env:ReSearch-MuSiQue-v0'" in note for note in notes)


def test_a_model_that_was_not_trained_here_says_which_preset_is_taken(tiny_folder: Path) -> None:
    config, notes = configured(tiny_folder)
    assert config.environment() == load_config([]).environment()
    assert notes == [f"{tiny_folder} does not say how it was trained; the settings are those of --preset tiny-cpu"]
    _, notes = configured(tiny_folder, "--preset", "qwen2.5-7b")
    assert "--preset qwen2.5-7b" in notes[0]


def test_settings_of_an_older_version_are_read(trained: Trained) -> None:
    old = {"preset": "tiny-cpu", "env": "research", "env_kwargs": {"top_k": 2}, "chat": True, "search_cost": 0.0,
           "research": {"id": "research_env:ReSearch-Synthetic-v0", "kwargs": {"split": "train"}}}  # fmt: skip
    config, notes = configured(trained(config=old))
    assert (config.renderer, config.environment().eval_kwargs) == ("templated", {"split": "train", "top_k": 2})
    assert notes == []


def test_the_algorithm_it_was_trained_with_is_not_needed(trained: Trained) -> None:
    saved = load_config([]).model_dump(mode="json") | {"algorithm": "not_here:Mine", "objective": {"beta": 1}}
    config, notes = configured(trained(config=saved))
    assert (config.environment(), notes) == (load_config([]).environment(), [])


def test_the_folder_of_the_run_will_do(trained: Trained) -> None:
    place = trained()
    assert evaluate.find(str(place.parent)) == place
    place.rename(place.with_name("checkpoint.old"))  # a kill while the next one took its place
    assert evaluate.find(str(place)).name == evaluate.find(str(place.parent)).name == "checkpoint.old"


def test_a_whole_evaluation_under_the_id_of_the_environment(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    place = trained("--cluster", "local", "--engine.kind", "transformers", "--env-kwargs", '{"hops": [1]}')
    found = []
    for more in ([], ["--env", "research_env:ReSearch-Synthetic-v0"]):
        out = place.parent / "result.json"
        assert evaluate.main([str(place.parent), "--questions", "2", "--json", str(out), *more]) == 0
        found.append({k: v for k, v in json.loads(out.read_text()).items() if k != "seconds"})
    assert found[0] == found[1]
    assert found[0]["env_kwargs"]["instructions"] == "{question}\n"
    assert found[0]["questions"] == {"1": 2}
    assert "differs" not in capsys.readouterr().out


@pytest.mark.usefixtures("musique_home")
def test_more_questions_than_there_are_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Nobody:
        def collect(self, plays: list[Any], *_: Any) -> Rollout:
            assert len(plays) == 6  # two of each hop count, all there are
            return Rollout([], 0, 0)

    environment = EnvironmentConfig(id="research_env:ReSearch-MuSiQue-v0")
    for questions, told in ((3, True), (2, False)):
        evaluate.evaluate(Nobody(), environment, {"split": "dev"}, questions)  # type: ignore[arg-type]
        assert ("there are fewer than 3 questions" in capsys.readouterr().out) is told


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], ["nowhere: there is no such folder"]),
        ([], ["python -m learners.evaluate runs/NAME"]),
        (["{checkpoint}", "--env", "NoSuch-v0"], ["NoSuch"]),
        (["{checkpoint}", "--preset", "huge"], ["--preset huge"]),
        (["{checkpoint}", "--questions", "0"], ["--questions 0"]),
        (["{checkpoint}", "--questions", "many"], ["--questions many", "whole number"]),
        (["{checkpoint}", "--env-kwargs", '{"splitt": "dev"}'], ["splitt"]),
        (["{checkpoint}", "--env-kwargs", "{bad"], ["--env-kwargs '{bad'", "not JSON"]),
        (["{checkpoint}", "--engine.max-length", "many"], ["--engine.max-length many: give a whole number"]),
        (["{checkpoint}", "--max-turn-tokens", "0"], ["--max-turn-tokens 0: give 1 or more"]),
        (["{checkpoint}", "--question", "3"], ["--question; did you mean --questions?"]),
        (["{checkpoint}", "--json", "no/such.json"], ["--json no/such.json", "no such folder"]),
        (["{checkpoint}", "--json", "/proc/none.json"], ["/proc/none.json cannot be written"]),
        (["{checkpoint}", "--env-kwargs", json.dumps({"instructions": "word " * 99 + "{question}"}),
          "--engine.max-length", "99"], ["--engine.max-length 99: the prompts of", "give more than"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    arguments: list[str], named: list[str], trained: Trained, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = trained("--cluster", "local", "--engine.kind", "transformers")
    monkeypatch.setattr(evaluate, "open_cluster", lambda *_, **__: pytest.fail("work began"))
    assert evaluate.main([argument.replace("{checkpoint}", str(place)) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert [name for name in named if name not in err] == [], err
