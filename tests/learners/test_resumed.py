"""A resumed run is made of its own settings, and keeps its policy, its tokenizer and its reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from learners.config import Config, load_config

Resumed = Callable[..., Config]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[Config, Resumed]]:
    """Begins the run `one` with these arguments; returns its settings, and a function that resumes it."""

    def begin(*arguments: str) -> tuple[Config, Resumed]:
        began = load_config([*arguments, "--runs", str(tmp_path)])
        folder = tmp_path / "one" / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": 2, "config": began.model_dump(mode="json")}))
        return began, lambda *more: load_config(["--runs", str(tmp_path), "--name", "one", "--resume", *more])

    return begin


def same(one: Config, other: Config) -> bool:
    """Whether they are the same but for what says which run is meant."""
    call = {"runs", "name", "resume", "dry_run"}
    return one.model_dump(exclude=call) == other.model_dump(exclude=call)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--preset", "qwen2.5-7b"),
        ("--preset", "qwen2.5-7b-instruct", "--env-kwargs", '{"corpus": "none"}'),
        ("--preset", "qwen2.5-7b", "--env", "my_module:My-v0", "--env-kwargs", '{"a": 1}'),
        ("--env", "my_module:My-v0", "--eval-env-kwargs", '{"a": 1}', "--research.wrappers", "a:B"),
        ("--research.stages", "[]", "--research.kwargs", '{"hops": [1]}', "--trainer.learning-rate", "0.5"),
        ("--search-cost", "0.1", "--objective.flat-episodes", "null"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--env", "research")], ids=["alone", "--env research"])
def test_its_own_settings_are_its_only_base(
    arguments: tuple[str, ...], more: tuple[str, ...], begin: Callable[..., tuple[Config, Resumed]]
) -> None:
    """The default preset's environment has arguments that other runs' have not; nothing of it may show through."""
    began, resumed = begin(*arguments)
    assert same(resumed(*more), began)
    assert resumed(*more).environment() == began.environment()


def test_what_is_given_explicitly_overrides(begin: Callable[..., tuple[Config, Resumed]], tmp_path: Path) -> None:
    began, resumed = begin("--preset", "qwen2.5-7b", "--seed", "3", "--env-kwargs", '{"top_k": 3, "split": "train"}')
    line = ["--steps", "200", "--trainer.learning-rate", "0.5", "--eval-questions", "7", "--cluster", "local"]
    config = resumed(*line, "--engine.count", "1", "--env-kwargs", '{"top_k": 2}', "--seed", "3")
    assert (config.steps, config.trainer.learning_rate, config.eval_questions) == (200, 0.5, 7)
    assert (config.cluster, config.engine.count, config.engine.device) == ("local", 1, "cuda")
    assert config.environment().kwargs == began.environment().kwargs | {"top_k": 2}
    file = tmp_path / "mine.toml"
    file.write_text("steps = 300\nprompts = 5\n[engine]\nthreads = 7\n")
    config = resumed("--config", str(file), "--steps", "400")
    assert (config.steps, config.prompts, config.engine.threads) == (400, 5, 7)
    assert (config.engine.count, config.model) == (began.engine.count, began.model)


def test_another_environment_gets_nothing_of_the_runs_own(begin: Callable[..., tuple[Config, Resumed]]) -> None:
    began, resumed = begin("--env-kwargs", '{"world_seed": 3}')
    for same_one in ("research_env:ReSearch-Synthetic-v0", "ReSearch-Synthetic-v0", "research_env:ReSearch-Synthetic"):
        assert resumed("--env", same_one).environment() == began.environment()
    other = resumed("--env", "my_module:My-v0", "--env-kwargs", '{"a": 1}').environment()
    assert (other.id, other.kwargs, other.eval_kwargs, other.stages) == ("my_module:My-v0", {"a": 1}, {"a": 1}, [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", "4"], ["seed = 3", "4"]),
        (["--model", "Qwen/Other"], ['model = "tiny"', "Qwen/Other"]),
        (["--tiny.hidden", "64"], ["tiny.hidden = 256", "64", "--tiny.hidden"]),
        (["--warmup.steps", "9"], ["warmup.steps = 160", "9"]),
        (["--preset", "qwen2.5-7b"], ["--preset tiny-cpu", "--preset qwen2.5-7b"]),
        (["--preset", "huge"], ["--preset tiny-cpu", "--preset huge"]),
        (["--algorithm", "an_outsider:Mine"], ["--algorithm an_outsider:Mine", "grpo", "--model"]),
    ],
)
def test_what_would_be_another_policy_is_refused(
    arguments: list[str], named: list[str], begin: Callable[..., tuple[Config, Resumed]]
) -> None:
    _, resumed = begin("--seed", "3")
    with pytest.raises(ValueError) as raised:
        resumed(*arguments)
    message = str(raised.value).replace("'", '"')
    assert "\n" not in message
    assert [name for name in named if name not in message] == [], message


def test_a_preset_that_it_began_with_says_nothing_new(begin: Callable[..., tuple[Config, Resumed]]) -> None:
    began, resumed = begin("--preset", "qwen2.5-7b", "--steps", "3")
    assert same(resumed("--preset", "qwen2.5-7b"), began)


def test_a_model_folder_is_the_same_from_everywhere(
    begin: Callable[..., tuple[Config, Resumed]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy").mkdir()
    monkeypatch.chdir(tmp_path)
    began, resumed = begin("--model", "policy")
    assert began.model == str(tmp_path / "policy")
    monkeypatch.chdir(tmp_path / "policy")
    assert resumed().model == began.model


def test_a_checkpoint_that_saved_no_settings_needs_a_preset(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 1}')
    resume = ["--runs", str(tmp_path), "--name", "one", "--resume"]
    with pytest.raises(ValueError, match="add --preset or --config"):
        load_config(resume)
    assert load_config([*resume, "--preset", "tiny-cpu"]).research.id


def test_settings_of_the_run_that_cannot_be_are_named_with_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 1, "config": {"preset": "tiny-cpu", "prompts": 0}}')
    with pytest.raises(ValueError, match=r"^prompts = 0 in the settings of .*one: give 1 or more$"):
        load_config(["--runs", str(tmp_path), "--name", "one", "--resume"])


def test_the_command_of_another_algorithm_is_refused(
    begin: Callable[..., tuple[Config, Resumed]], tmp_path: Path
) -> None:
    begin()
    again = ["--runs", str(tmp_path), "--name", "one", "--resume"]
    with pytest.raises(ValueError, match="--algorithm mine:Other: the run began with grpo"):
        load_config(again, "mine:Other")
    assert load_config([*again, "--algorithm", "grpo"], "mine:Other").algorithm == "grpo"
