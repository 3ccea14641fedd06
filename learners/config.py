"""Configuration of a run: preset, then TOML file, then the command line; of a resumed run, its own settings first.

Every source becomes a dictionary of the settings that it gives, without defaults. They are merged once (a later source
wins) and checked once.
Each section is a model beside its owner; none of them imports torch, transformers, Ray or vLLM.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from learners import flags, plugins, resumed
from learners.algorithms.base import Objective
from learners.engines.config import EngineConfig
from learners.environment import EnvironmentConfig, Stage, same_environment
from learners.messages import fix, shown
from learners.old_form import new_form, split_arguments, with_cost
from learners.settings import Source, at, merge, preset_path, read_toml
from learners.tiny.config import TinyConfig, WarmupConfig
from learners.trainer_config import TrainerConfig


class Config(BaseModel):
    """Train a policy on a gymnasium environment of texts."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, extra="forbid", protected_namespaces=(), validate_default=True,
        allow_inf_nan=False,
    )  # fmt: skip

    preset: str = "tiny-cpu"
    """`tiny-cpu`, `qwen2.5-7b`, `qwen2.5-7b-instruct`, or a TOML file's path."""
    config: Path | None = None
    """TOML file with any of these settings."""
    env: str = "research"
    """`research` (the preset's own environment, which its id means, too; of a resumed run, its own) or a gymnasium id;
    `module:Id-v0` imports the module first."""
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
    """Continue the run `name` from its last checkpoint, with its own settings and what else is given here."""
    dry_run: bool = False
    """Print the resolved configuration and the placement, check them against the machine, and exit."""
    seed: int = Field(0, ge=0, lt=2**31)
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

    @field_validator("model")
    @classmethod
    def _found_from_anywhere(cls, value: str) -> str:
        # Actors run in folders of their own, and a run may be resumed from another one.
        path = Path(value).expanduser()
        return str(path.resolve()) if value != "tiny" and path.is_dir() else value

    @model_validator(mode="after")
    def _an_update_has_a_question(self) -> Self:
        if self.minibatches > self.prompts:
            raise ValueError(
                f"each update needs a question, and --prompts {self.prompts} is less than --minibatches "
                f"{self.minibatches}; lower --minibatches"
            )
        return self

    def environment(self) -> EnvironmentConfig:
        """The environment of this run, every keyword argument resolved; what the user gave overrides the preset."""
        base = self.research
        # Wrappers, metrics and the time limit are the user's choice, the rest belongs to the preset's environment.
        if self.env != "research" and not same_environment(self.env, base.id):
            base = EnvironmentConfig(
                id=self.env, wrappers=base.wrappers, metrics=base.metrics, step_timeout=base.step_timeout
            )
        evaluation = base.kwargs | base.eval_kwargs | self.env_kwargs | self.eval_env_kwargs
        return EnvironmentConfig(
            id=base.id,
            kwargs=base.kwargs | self.env_kwargs,
            eval_kwargs=evaluation,
            blind_kwargs=evaluation | base.blind_kwargs if base.blind_kwargs else {},
            stages=[Stage(kwargs=base.kwargs | s.kwargs | self.env_kwargs, until=s.until) for s in base.stages],
            wrappers=base.wrappers,
            metrics=base.metrics,
            step_timeout=base.step_timeout,
        )


_NOWHERE = object()


def load_config(arguments: Sequence[str], algorithm: str = "grpo") -> Config:
    """Resolve preset, file, the settings of a resumed run, and the command line.

    Args:
        arguments: The command line.
        algorithm: Used where nothing names one; `python -m learners.<algorithm>` is the command.

    Raises:
        ValueError: a setting is unknown or impossible; the message names it.
    """
    prog = f"python -m learners.{algorithm}"
    old, rest = split_arguments(arguments, prog)
    ahead = _look_ahead(rest, prog)
    below = _sources(ahead)
    # What flags there are depends on the algorithm, which any of the sources may name.
    chosen = _chosen([*below, Source("", ahead)], algorithm)
    # `learners.grpo` runs every algorithm that is named; the command of another one names its own.
    if below[0].saved and algorithm != "grpo" and not ahead.get("algorithm"):
        resumed.check_algorithm(below[0], algorithm)
    settings = plugins.algorithm(chosen).Settings
    base = _merged(below, chosen, settings)
    about = f"{Config.__doc__} The defaults below are those of {' and '.join(source.name for source in below)}."
    parser = flags.Parser(prog, usage="%(prog)s [--setting VALUE ...]", description=about)
    flags.add(parser, Config, base | ahead, {"objective": settings})
    # In two parts, because the new form of a setting wins over the old.
    return _resolve([*below, Source("", merge(new_form(old), parser.read(rest)), line=True)], chosen)


def resolve(
    given: Mapping[str, Any], algorithm: str = "grpo", saved: Mapping[str, Any] | None = None, line: bool = False
) -> Config:  # fmt: skip
    """Resolve preset, file and the settings in a dictionary, which win.

    Args:
        given: As a TOML file would have them; `preset` and `config` say which files are read.
        algorithm: Used where nothing names one.
        saved: Settings in a checkpoint, which take the place of a preset that `given` does not name.
        line: Whether `given` comes from a command line, whose flags are to be named in errors.

    Raises:
        ValueError: a setting is unknown or impossible; the message names it.
    """
    own = None if saved is None or given.get("preset") else resumed.source("the checkpoint's settings", saved)
    sources = [*_sources(given, own), Source("", given, line)]
    return _resolve(sources, _chosen(sources, algorithm))


def _look_ahead(arguments: Sequence[str], prog: str) -> dict[str, Any]:
    """The settings that decide which other settings are read, and which flags there are."""
    parser = flags.Parser(prog, add_help=False)
    for name in ("preset", "config", "algorithm", "runs", "name"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction)
    return vars(parser.parse_known_args(arguments)[0])


def _sources(given: Mapping[str, Any], saved: Source | None = None) -> list[Source]:
    """What lies below the command line, lowest first: a preset, or the settings of a resumed run; and a file."""
    # Values are not checked yet: a wrong one may be overridden, so errors are reported when everything is merged.
    file = [Source(str(given["config"]), read_toml(Path(given["config"])))] if given.get("config") else []
    known = {**(file[0].settings if file else {}), **given}
    if known.get("resume"):
        saved = resumed.read(known, explicit="preset" in known or "config" in known)
        resumed.check_preset(known.get("preset"), saved)
    if saved is not None:
        return [saved, *file]
    name = str(known.get("preset", Config.model_fields["preset"].default))
    return [Source(f"the preset {name}", read_toml(preset_path(name))), *file]


def _chosen(sources: Sequence[Source], default: str) -> str:
    """The algorithm: of the last source that names one."""
    chosen = str(next((s.settings["algorithm"] for s in reversed(sources) if "algorithm" in s.settings), default))
    if sources[0].saved:
        resumed.check_algorithm(sources[0], chosen)
    return chosen


def _merged(sources: Sequence[Source], algorithm: str, settings: type[Objective]) -> dict[str, Any]:
    """All sources as one dictionary, a later one winning at every depth."""
    merged: dict[str, Any] = {}
    for number, source in enumerate(sources):
        new = new_form(source.settings)
        # A preset is for GRPO unless it says otherwise. Under another algorithm, its knobs count where both have them.
        own = new.get("algorithm", "grpo" if number == 0 else None)
        if not source.line and own not in (None, algorithm) and isinstance(new.get("objective"), Mapping):
            knobs = new["objective"].items()
            new["objective"] = {name: value for name, value in knobs if name in settings.model_fields}
        if merged and sources[0].saved:
            merged, new = resumed.over(merged, new)
        merged = with_cost(merge(merged, new))
    return merged | {"algorithm": algorithm}


def _resolve(sources: Sequence[Source], algorithm: str) -> Config:
    """Merge, and check."""
    settings = plugins.algorithm(algorithm).Settings
    try:
        config = Config.model_validate(_merged(sources, algorithm, settings))
    except ValidationError as error:
        raise ValueError(_message(error.errors()[0], sources, settings)) from None
    if sources[0].saved and config.resume:
        resumed.check_policy(sources[0], config.model_dump(mode="json"))
    return config


def _message(error: Mapping[str, Any], sources: Sequence[Source], settings: type[Objective]) -> str:
    """One line: the setting, its value, where it stands, and what to do."""
    place = list(error["loc"])
    if not place:  # settings that do not go together
        return fix(error)
    name, absent = ".".join(map(str, place)), error["type"] == "missing"
    # The highest source that has it decided it; what is missing, that which has the section.
    sought = place[:-1] if absent else place
    source = next((s for s in reversed(sources) if at(new_form(s.settings), sought, _NOWHERE) is not _NOWHERE), None)
    where = f" in {source.name}" if source and source.name else ""
    if absent:
        return f"{name}{where}: {fix(error)}"
    if error["type"] == "extra_forbidden":
        known = flags.Parser("", add_help=False)
        flags.add(known, Config, {}, {"objective": settings})
        close = flags.suggestion(name, known.flags()).replace("--", "").replace("-", "_")
        return f"{name} = {shown(error['input'])}{where}: there is no such setting{close}"
    if source and source.line:
        value = error["input"]
        written = shlex.quote(value) if isinstance(value, str) else shown(value)
        return f"--{name.replace('_', '-')} {written}: {fix(error)}"
    return f"{name} = {shown(error['input'])}{where}: {fix(error)}"
