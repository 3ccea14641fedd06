"""Configuration of a run: preset, then TOML file, then the settings of a resumed run, then the command line.

Every source becomes a dictionary of the settings that it gives, without defaults. They are merged once (a later source
wins) and checked once.
Each section is a model beside its owner; none of them imports torch, transformers, Ray or vLLM.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from learners import plugins
from learners.algorithms.base import Objective
from learners.engines.config import EngineConfig
from learners.environment import EnvironmentConfig, Stage
from learners.names import flat
from learners.old_form import new_form, split_arguments, with_cost
from learners.settings import merge, preset_path, read_saved, read_toml
from learners.tiny.config import TinyConfig, WarmupConfig
from learners.trainer_config import TrainerConfig


class Config(BaseModel):
    """Train a policy on a gymnasium environment of texts."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, extra="forbid", protected_namespaces=(), validate_default=True
    )

    preset: str = "tiny-cpu"
    """`tiny-cpu`, `qwen2.5-7b`, `qwen2.5-7b-instruct`, or a TOML file's path."""
    config: Path | None = None
    """TOML file with any of these settings."""
    env: str = "research"
    """`research` (the preset's own environment) or a gymnasium id; `module:Id-v0` imports the module first."""
    env_kwargs: dict[str, Any] = {}
    """Keyword arguments of `gym.make`, JSON; on top of the preset's where `env` is `research`."""
    eval_env_kwargs: dict[str, Any] = {}
    """Changes to them for evaluation, JSON."""
    research: EnvironmentConfig = EnvironmentConfig()
    """The environment that `--env research` stands for; presets set it."""
    model: str = "tiny"
    """`tiny` (made on the spot), or a folder or Hub id in Hugging Face format."""
    renderer: str = "plain"
    """How the environment's texts become tokens: `plain` (as they are), `templated` (the prompt goes through the
    tokenizer's chat template, as the user's turn), or `module:Class`."""
    name: str | None = None
    """Name of the run; its folder is `runs/<name>`. None takes the next free number."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    resume: bool = False
    """Continue the run `name` from its last checkpoint."""
    dry_run: bool = False
    """Print the resolved configuration and the placement, check them against the machine, and exit."""
    seed: int = Field(0, ge=0)
    """Seed of weights, question order and sampling."""
    algorithm: str = "grpo"
    """A name in `learners.algorithms.ALGORITHMS` or `module:Class`; it decides what the section `objective` holds."""
    objective: SerializeAsAny[BaseModel] = Objective()
    """Knobs of the algorithm."""
    cluster: Literal["ray", "local"] = "ray"
    """Ray actors, or everything in this process, without Ray."""
    steps: int = Field(60, ge=0)
    """Rounds of rollout and training."""
    prompts: int = Field(48, ge=1)
    """Questions in a step."""
    group_size: int = Field(8, ge=2)
    """Episodes of each question."""
    minibatches: int = Field(1, ge=1)
    """Optimiser updates in a step, each on its own part of the questions; 1 is strictly on-policy."""
    epochs: int = Field(1, ge=1)
    """Passes over the episodes of a step."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature in training; evaluation is greedy."""
    max_turn_tokens: int = Field(64, ge=1)
    """Tokens the policy may write in one turn."""
    max_retries: int = Field(2, ge=0)
    """Times an episode is tried again after its environment failed, before it is dropped."""
    eval_questions: int = Field(500, ge=0)
    """Questions of each hop count in an evaluation; 0 evaluates nothing."""
    checkpoint_every: int = Field(20, ge=1)
    """Steps between checkpoints."""
    engine: EngineConfig = EngineConfig()
    trainer: TrainerConfig = TrainerConfig()
    tiny: TinyConfig = TinyConfig()
    warmup: WarmupConfig = WarmupConfig()

    @field_validator("objective", mode="before")
    @classmethod
    def _as_the_algorithm_has_it(cls, value: Any, info: ValidationInfo) -> Any:
        """Check the section against the algorithm's own model: the field's type says only that it is a model."""
        settings = plugins.algorithm(info.data.get("algorithm", "")).Settings
        if isinstance(value, BaseModel):  # the default, or a section made for another algorithm
            value = value.model_dump(exclude_unset=True)
        # pydantic gives the errors of this their place, e.g. `objective.clip`.
        return settings.model_validate(value)

    def environment(self) -> EnvironmentConfig:
        """The environment of this run, every keyword argument resolved; what the user gave overrides the preset."""
        base = self.research
        if self.env != "research":  # wrappers and metrics are the user's choice, the rest belongs to the preset's own
            base = EnvironmentConfig(id=self.env, wrappers=base.wrappers, metrics=base.metrics)
        evaluation = base.kwargs | base.eval_kwargs | self.env_kwargs | self.eval_env_kwargs
        return EnvironmentConfig(
            id=base.id,
            kwargs=base.kwargs | self.env_kwargs,
            eval_kwargs=evaluation,
            blind_kwargs=evaluation | base.blind_kwargs if base.blind_kwargs else {},
            stages=[Stage(kwargs=base.kwargs | s.kwargs | self.env_kwargs, until=s.until) for s in base.stages],
            wrappers=base.wrappers,
            metrics=base.metrics,
        )


Sources = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
"""What preset, file and saved settings say, as written."""


def load_config(arguments: Sequence[str], algorithm: str = "grpo") -> Config:
    """Resolve preset, file, saved settings and command line.

    Args:
        arguments: The command line.
        algorithm: Used where nothing names one; `python -m learners.<algorithm>` is the command.

    Raises:
        ValueError: a setting is unknown or impossible; the message names it.
    """
    prog = f"python -m learners.{algorithm}"
    old, rest = split_arguments(arguments, prog)
    ahead = _look_ahead(rest, prog)
    sources = _sources(ahead)
    # What flags there are depends on the algorithm, which any of the sources may name.
    chosen = _chosen(sources, ahead, algorithm)
    settings = plugins.algorithm(chosen).Settings
    line = create_model(
        "CommandLine", __base__=(BaseSettings, Config), __doc__=Config.__doc__, objective=(settings, ...)
    )  # fmt: skip
    # Only pydantic's parser of the command line is used, and not its checks: a flag that is not given must not get a
    # default here, which would override the preset.
    try:
        given = CliSettingsSource[Any](
            cast(type[BaseSettings], line), cli_prog_name=prog, cli_parse_args=rest,
            cli_kebab_case=True, cli_implicit_flags=True,
        )()  # fmt: skip
    except SettingsError as error:
        raise ValueError(f"{flat(error)}; give JSON, or name=value") from None
    return _resolve(sources, merge(old, given), chosen)


def resolve(given: Mapping[str, Any], algorithm: str = "grpo") -> Config:
    """Resolve preset, file, saved settings and the settings in a dictionary, which win.

    Args:
        given: As a TOML file would have them; `preset` and `config` say which files are read.
        algorithm: Used where nothing names one.

    Raises:
        ValueError: a setting is unknown or impossible; the message names it.
    """
    sources = _sources(given)
    return _resolve(sources, given, _chosen(sources, given, algorithm))


def _look_ahead(arguments: Sequence[str], prog: str) -> dict[str, Any]:
    """The settings that decide which other settings are read, and which flags there are."""
    parser = argparse.ArgumentParser(
        prog, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS, argument_default=argparse.SUPPRESS
    )
    for name in ("preset", "config", "algorithm", "runs", "name"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction)
    return vars(parser.parse_known_args(arguments)[0])


def _sources(given: Mapping[str, Any]) -> Sources:
    # Nothing is checked yet: a wrong value may be overridden, so errors are reported when everything is merged.
    preset = read_toml(preset_path(str(given.get("preset", Config.model_fields["preset"].default))))
    file = read_toml(Path(given["config"])) if given.get("config") else {}
    return preset, file, read_saved({**preset, **file, **given})


def _chosen(sources: Sources, given: Mapping[str, Any], default: str) -> str:
    """The algorithm: of the last source that names one."""
    return str(next((each["algorithm"] for each in (given, *reversed(sources)) if "algorithm" in each), default))


def _resolve(sources: Sources, given: Mapping[str, Any], algorithm: str) -> Config:
    """Merge, and check. This is the only place that knows which source wins."""
    preset, file, saved = (new_form(source) for source in sources)
    settings = plugins.algorithm(algorithm).Settings
    # A preset is for GRPO unless it says otherwise. Under another algorithm, its knobs count where both have them.
    for source, own in (
        (preset, preset.get("algorithm", "grpo")),
        (file, file.get("algorithm")),
        (saved, saved.get("algorithm")),
    ):
        if own not in (None, algorithm) and isinstance(source.get("objective"), Mapping):
            knobs = source["objective"].items()
            source["objective"] = {name: value for name, value in knobs if name in settings.model_fields}
    # Saved settings are complete, so they replace whole sections: else a preset's environment would show through.
    below = with_cost(merge(preset, file)) | with_cost(saved)
    merged = with_cost(merge(below, new_form(given))) | {"algorithm": algorithm}
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place} = {first['input']!r}: {first['msg']}") from None
    now = config.model_dump(mode="json")
    # These decide the first policy, which is the reference of the KL term as long as the run goes on.
    for name in ("seed", "model", "tiny", "warmup"):
        if name in saved and now[name] != saved[name]:
            raise ValueError(
                f"--resume: the run began with {name} = {saved[name]}, another policy than {now[name]}; leave it out"
            )
    return config
