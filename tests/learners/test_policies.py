"""What a run starts from, and the reference that it keeps, whatever its environment's arguments are later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learners import checkpoint, policies, preflight, run
from learners.config import Config, load_config
from learners.tiny import warmup
from learners.tiny.model import make_tokenizer

SMALL = [
    "--cluster", "local", "--engine.kind", "transformers", "--prompts", "2", "--group-size", "2", "--minibatches", "1",
    "--warmup.steps", "2", "--warmup.episodes-per-step", "2", "--tiny.hidden", "64", "--tiny.layers", "2",
    "--tiny.heads", "2", "--tiny.feed-forward", "64", "--eval-questions", "0", "--max-turn-tokens", "8",
]  # fmt: skip


def test_a_resumed_run_keeps_tokenizer_and_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With other environment arguments it warmed up another tiny policy, and put the old weights under its tokens."""
    folder = tmp_path / "one"
    call = ["--runs", str(tmp_path), "--name", "one"]
    assert run.main([*call, *SMALL, "--steps", "1"]) == 0
    tokenizer = (folder / "checkpoint" / "tokenizer.json").read_bytes()
    reference = (folder / "reference" / "model.safetensors").read_bytes()
    resume = [
        *call,
        "--resume",
        "--steps",
        "2",
        "--env-kwargs",
        '{"world_seed": 7, "instructions": "Q: {question}\\n"}',
    ]
    assert run.main(resume) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "resuming after step 1" in out
    told = {line.split("before: ")[1] for line in out.splitlines() if "differs from before" in line}
    assert told == {
        "steps 1 -> 2", "env_kwargs.world_seed not given -> 7",
        "env_kwargs.instructions not given -> 'Q: {question}\\n'",
    }  # fmt: skip
    assert out.count("imitating a random agent") == 1, "another policy was warmed up"
    assert (folder / "checkpoint" / "tokenizer.json").read_bytes() == tokenizer
    assert (folder / "reference" / "model.safetensors").read_bytes() == reference
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    assert steps[1]["policy/engine_gap"] < 1e-4, "engine and trainer hold different policies"


def test_an_episode_has_room_for_more_than_its_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--runs", str(tmp_path), *SMALL, "--engine.max-length", "16", "--steps", "1", "--env-kwargs"]
    assert run.main([*line, '{"instructions": "' + "Answer the question that follows. " * 9 + '{question}"}']) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --engine.max-length 16: the prompts of research_env:ReSearch-Synthetic-v0 have ")
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("*/checkpoint"))


@pytest.fixture
def begin(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Begins the run `one`, whose policies are made at once, and returns its settings when it is resumed."""
    recipes: list[Any] = []

    def made_at_once(config: Config, say: Callable[[str], None]) -> Path:
        recipes.append(config.environment())
        folder = tmp_path / f"cache-{len(recipes)}"
        shutil.copytree(tiny_folder, folder)
        return folder

    monkeypatch.setattr(warmup, "tiny_policy", made_at_once)

    def begin(*arguments: str, resume: tuple[str, ...] = ()) -> Config:
        call = ["--runs", str(tmp_path), "--name", "one"]
        config = load_config([*call, *arguments])
        run = tmp_path / "one"
        run.mkdir()
        policies.made(config, run, print)
        shutil.copytree(tiny_folder, run / "checkpoint")
        (run / "checkpoint" / "state.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
        return load_config([*call, "--resume", *resume])

    begin.recipes = recipes  # type: ignore[attr-defined]
    return begin


def test_the_tiny_reference_is_the_runs_own(begin: Callable[..., Config], tmp_path: Path) -> None:
    config = begin(resume=("--env-kwargs", '{"world_seed": 7}'))
    shutil.rmtree(tmp_path / "cache-1")  # somebody tidied up
    run = tmp_path / "one"
    found = policies.made(config, run, print)
    assert found == (str(run / "checkpoint"), str(run / "reference"))
    assert len(begin.recipes) == 1  # type: ignore[attr-defined]


def test_a_model_that_was_there_before_is_its_own_reference(begin: Callable[..., Config], tiny_folder: Path) -> None:
    config = begin("--model", str(tiny_folder), "--engine.max-length", "250")
    assert policies.chosen(config).reference == str(tiny_folder)
    assert Path(policies.chosen(config).policy).name == checkpoint.NAME


def test_no_reference_is_asked_for_where_nothing_looks_at_it(begin: Callable[..., Config], tmp_path: Path) -> None:
    config = begin(resume=("--objective.kl", "0"))
    shutil.rmtree(tmp_path / "one" / "reference")
    assert policies.made(config, tmp_path / "one", print) == (str(tmp_path / "one" / "checkpoint"), None)


def test_an_older_run_makes_its_reference_again_from_its_own_settings(
    begin: Callable[..., Config], tmp_path: Path
) -> None:
    config = begin("--env-kwargs", '{"hops": [1]}', resume=("--env-kwargs", '{"hops": [2]}'))
    run = tmp_path / "one"
    shutil.rmtree(run / "reference")
    assert policies.made(config, run, print).reference == str(run / "reference")
    first, again = begin.recipes  # type: ignore[attr-defined]
    assert (again.id, again.kwargs) == (first.id, first.kwargs)
    assert config.environment().kwargs["hops"] == [2]
    assert (run / "reference" / "config.json").is_file()


def test_what_an_older_run_makes_again_must_fit_its_checkpoint(begin: Callable[..., Config], tmp_path: Path) -> None:
    config = begin()
    run = tmp_path / "one"
    shutil.rmtree(run / "reference")
    make_tokenizer(["other words altogether"] * 9, [], 300).save_pretrained(run / "checkpoint")
    with pytest.raises(ValueError, match=r"no reference/.*another tokenizer.*--objective\.kl 0") as raised:
        policies.made(config, run, print)
    assert "\n" not in str(raised.value)


def test_a_reference_that_is_gone_is_named(
    begin: Callable[..., Config], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = begin("--model", str(model), "--engine.max-length", "250")
    preflight.check_machine(config, trainers=1)
    shutil.rmtree(model)
    with pytest.raises(ValueError, match=rf"^--model {model}: there is no such folder$"):
        preflight.check_machine(config, trainers=1)
    preflight.check_machine(load_config(["--runs", str(tmp_path), "--name", "one", "--resume", "--kl", "0"]), 1)
