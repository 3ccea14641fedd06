"""Settings: preset, then TOML file, then command line; whatever is wrong is one clear error that names it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from learners import run
from learners.algorithms.grpo import GRPOSettings
from learners.config import Config, load_config, resolve
from learners.settings import preset_path

PRESETS = sorted(path.stem for path in (Path(str(files("learners"))) / "presets").glob("*.toml"))


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A TOML file that sets one thing the tiny preset sets, one it does not, and one inside a section."""
    path = tmp_path / "mine.toml"
    path.write_text("prompts = 7\n\n[objective]\nclip = 0.3\n\n[engine]\nmax_length = 333\n")
    return path


def test_defaults_then_preset_then_toml_then_command_line(toml: Path) -> None:
    preset = tomllib.loads(preset_path("tiny-cpu").read_text())
    plain = load_config([])
    assert plain.prompts == preset["prompts"] != 7
    for section in ("engine", "trainer", "warmup", "tiny"):
        for name, value in preset.get(section, {}).items():
            assert getattr(getattr(plain, section), name) == value
    defaults = {name: field.default for name, field in Config.model_fields.items()}
    assert any(getattr(plain, name) == preset[name] != defaults[name] for name in ("steps", "minibatches"))
    assert plain.objective.clip == GRPOSettings().clip
    assert plain.objective.kl == preset["objective"]["kl"] != GRPOSettings().kl

    filed = load_config(["--config", str(toml)])
    assert (filed.prompts, filed.objective.clip, filed.engine.max_length) == (7, 0.3, 333)
    assert filed.trainer == plain.trainer, "the file threw away what it does not set"
    assert filed.engine == plain.engine.model_copy(update={"max_length": 333})

    told = load_config(["--prompts", "9", f"--config={toml}", "--engine.max-length", "444"])
    assert (told.prompts, told.objective.clip, told.engine.max_length) == (9, 0.3, 444)
    assert told.engine.threads == plain.engine.threads


def test_one_load_leaves_nothing_for_the_next(toml: Path) -> None:
    load_config(["--config", str(toml)])
    assert load_config([]).objective.clip == GRPOSettings().clip


def test_a_preset_may_be_a_file(toml: Path) -> None:
    config = load_config(["--preset", str(toml)])
    assert config.prompts == 7
    assert config.trainer == Config.model_fields["trainer"].default


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_read(name: str) -> None:
    config = load_config(["--preset", name])
    assert config.preset == name
    assert config.environment().id


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "huge"], ["--preset", "huge", "tiny-cpu"]),
        (["--preset", "absent.toml"], ["absent.toml"]),
        (["--config", ""], ["--config", "value is missing"]),
        (["--config", "absent.toml"], ["absent.toml", "No such file"]),
        (["--prompts", "many"], ["prompts", "many"]),
        (["--objective.clip", "-1"], ["objective.clip", "-1"]),
        (["--engine.device", "tpu"], ["engine.device", "tpu"]),
        (["--algorithm", "ppo2"], ["--algorithm", "ppo2", "grpo"]),
        (["--name", "taken"], ["--name", "taken", "--resume"]),
        (["--resume"], ["--resume", "--name"]),
        (["--resume", "--name", "bare"], ["--resume", "bare", "checkpoint"]),
        (["--resume", "--name", "absent"], ["--resume", "absent"]),
        (["--engine.kind", "typo"], ["--engine.kind", "typo", "vllm"]),
        (["--engine.kind", "collections:Counter"], ["--engine.kind", "collections:Counter", "generate"]),
        (["--algorithm", "collections:Counter"], ["--algorithm", "collections:Counter", "credit"]),
        (["--renderer", "typo"], ["--renderer", "typo", "templated"]),
        (["--renderer", "templated"], ["--renderer", "chat template"]),
        (["--research.metrics", "math:nothing"], ["metrics", "math:nothing"]),
        (["--research.wrappers", "math:nothing"], ["wrapper", "math:nothing"]),
        (["--research.wrappers", "a"], ["wrapper", "module:Name"]),
        (["--cluster", "local", "--engine.count", "2"], ["--cluster local", "--engine.count"]),
        (["--cluster", "slurm"], ["cluster", "slurm", "local"]),
        (["--model", "no/such/folder"], ["--model", "no/such/folder"]),
        (["--tiny.layers", "1"], ["tiny.layers", "1"]),
        (["--env", "NoSuch-v0"], ["NoSuch"]),
        (["--env", "no_such_module:NoSuch-v0"], ["no_such_module"]),
        (["--env", "CartPole-v1"], ["CartPole-v1", "texts"]),
        (["--env-kwargs", '{"hops": [9]}'], ["hops"]),
        (["--env-kwargs", '{"hops": [9}'], ["--env-kwargs", '{"hops": [9}', "JSON"]),
        (["--env-kwargs", '{"num_entitis": 9}'], ["num_entitis", "num_entities"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_a_wrong_argument_is_one_line_that_names_it(
    arguments: list[str], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Before any work: the training itself must not be reached."""
    monkeypatch.setattr(run, "train", lambda *_: pytest.fail("training began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "taken" / "checkpoint").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "checkpoint" / "state.json").write_text("{}")
    (tmp_path / "runs" / "bare" / "checkpoint").mkdir(parents=True)
    assert run.main(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert [name for name in named if name not in lines[0]] == []
    assert out == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("promts = 3\n", ["promts"]),
        ("[engine]\nmax_lenght = 3\n", ["engine.max_lenght"]),
        ("[engin]\nmax_length = 3\n", ["engin"]),
        ("prompts = 0\n", ["prompts", "0"]),
        ("prompts = \n", ["mine.toml", "line 1"]),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(text: str, named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        load_config(["--config", str(path)])
    message = str(raised.value)
    assert "\n" not in message
    assert [name for name in named if name not in message] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_help_lists_every_setting_with_the_value_that_the_preset_gives_it(
    preset: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken, so that texts can be compared
    chosen = load_config(["--preset", preset])
    with pytest.raises(SystemExit) as exit_:
        load_config(["--preset", preset, "--help"])
    assert exit_.value.code == 0
    # An entry begins with its option, indented by two: "  --clip float   Bound of … (default: 0.2)".
    blocks = re.split(r"^  (?=--)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    entries = {re.split(r"[ ,\n]", block)[0]: " ".join(block.split("\n\n")[0].split()) for block in blocks}

    def fields(model: BaseModel, prefix: str) -> Iterator[tuple[str, FieldInfo, object]]:
        for name, field in type(model).model_fields.items():
            option, value = f"{prefix}{name.replace('_', '-')}", getattr(model, name)
            if isinstance(value, BaseModel):
                yield from fields(value, f"{option}.")
            else:
                yield option, field, model.model_dump(mode="json")[name]

    described = list(fields(chosen, "--"))
    assert len(described) > 50
    assert sorted({option for option, *_ in described} - set(entries)) == []
    for option, field, value in described:
        assert field.description, f"{option} has no docstring"
        assert " ".join(field.description.split()) in entries[option]
        if option not in ("--research.stages", "--research.wrappers"):  # written there as the preset has them
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            assert f"(default: {shown})" in entries[option]


def test_dry_run_prints_the_settings_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "train", lambda *_: pytest.fail("training began"))
    monkeypatch.chdir(tmp_path)
    assert run.main(["--dry-run", "--prompts", "5", "--name", "new"]) == 0
    out = capsys.readouterr().out
    printed, _ = json.JSONDecoder().raw_decode(out[out.index("{") :])
    assert printed["prompts"] == 5
    assert printed["engine"]["kind"] == "vllm"
    assert list(tmp_path.iterdir()) == []


def test_a_dictionary_is_resolved_as_a_command_line_is(toml: Path) -> None:
    given = {"config": str(toml), "engine": {"threads": 3}, "env_kwargs": {"hops": [1]}}
    line = ["--config", str(toml), "--engine.threads", "3", "--env-kwargs", '{"hops": [1]}']
    assert resolve(given) == load_config(line)
    with pytest.raises(ValueError, match=r"^engine\.thread = 3"):
        resolve({"engine": {"thread": 3}})


def test_the_configuration_is_built_without_anything_heavy() -> None:
    """In a fresh process: every preset with every section, its environment, and the errors of a wrong setting."""
    code = f"""
import sys
from learners.config import load_config
for preset in {PRESETS!r}:
    load_config(["--preset", preset, "--objective.kl", "0.5"]).environment()
for wrong in (["--prompts", "0"], ["--algorithm", "typo"], ["--objective.clip", "0"]):
    try:
        load_config(wrong)
    except ValueError:
        continue
    raise SystemExit(f"{{wrong}} was taken")
print(*sorted({{"torch", "transformers", "ray", "vllm"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_keyword_arguments_go_on_top_of_the_presets() -> None:
    config = load_config(["--env-kwargs", '{"hops": [1], "world_seed": 3}', "--eval-env-kwargs", '{"hops": [2]}'])
    environment = config.environment()
    assert (environment.kwargs["hops"], environment.kwargs["world_seed"]) == ([1], 3)
    assert environment.kwargs["split"] == "train"
    assert environment.eval_kwargs == environment.kwargs | {"split": "test", "hops": [2]}
    assert environment.blind_kwargs == environment.eval_kwargs | {"corpus": "none"}


def test_another_environment_takes_nothing_from_the_preset() -> None:
    config = load_config(["--env", "some_module:Some-v0", "--env-kwargs", '{"a": 1}'])
    environment = config.environment()
    assert (environment.id, environment.kwargs) == ("some_module:Some-v0", {"a": 1})
    assert (environment.eval_kwargs, environment.blind_kwargs) == ({"a": 1}, {})


@pytest.mark.parametrize("env", ["research_env:ReSearch-Synthetic-v0", "ReSearch-Synthetic-v0"])
def test_the_presets_environment_may_be_named_by_its_id(env: str) -> None:
    assert load_config(["--env", env]).environment() == load_config([]).environment()
    assert load_config(["--env", "ReSearch-Synthetic-v1"]).environment().kwargs == {}
    assert load_config(["--env", "other:ReSearch-Synthetic-v0"]).environment().kwargs == {}


def test_wrappers_and_metrics_belong_to_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[research]\nmetrics = "a:b"\nwrappers = ["c:D", { name = "e:F", kwargs = { g = 1 } }]\n')
    environment = load_config(["--config", str(path)]).environment()
    assert [(each.name, each.kwargs) for each in environment.wrappers] == [("c:D", {}), ("e:F", {"g": 1})]
    assert environment.metrics == "a:b"
    other = load_config(["--config", str(path), "--env", "some_module:Some-v0"]).environment()
    assert (other.id, other.kwargs) == ("some_module:Some-v0", {})
    assert (other.wrappers, other.metrics) == (environment.wrappers, "a:b")
    told = load_config(["--research.wrappers", "h:I", "--research.wrappers", '{"name": "j:K", "kwargs": {"l": 2}}'])
    assert [(each.name, each.kwargs) for each in told.research.wrappers] == [("h:I", {}), ("j:K", {"l": 2})]
