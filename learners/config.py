"""Configuration of a run: preset, then TOML file, then command line, the later winning."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from learners.tiny import TinyConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Stage(_Section):
    """A stage of a curriculum."""

    kwargs: dict[str, Any]
    """What changes in the training environment's keyword arguments while the stage lasts."""
    until: float
    """It ends with the first step whose mean reward reaches this."""


class EnvironmentConfig(_Section):
    """An environment, with what differs between training and evaluation."""

    id: str = ""
    """Gymnasium id, `module:Id-v0` where importing the module registers it."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of `gym.make`, JSON."""
    eval_kwargs: dict[str, Any] = {}
    """What changes in them for evaluation."""
    blind_kwargs: dict[str, Any] = {}
    """What changes further to evaluate without retrieval; empty leaves that evaluation out."""
    stages: list[Stage] = []
    """Easier stages of training, in order; after the last one `kwargs` are as they stand."""


class EngineConfig(_Section):
    """Engines: they sample from the policy."""

    kind: str = "vllm"
    """`vllm`, `transformers` (where vLLM has no wheel), or `module:Class`."""
    count: int = Field(1, ge=1)
    """Engine actors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where they run."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations."""
    threads: int = Field(2, ge=1)
    """CPU threads of each engine (CPU only)."""
    max_length: int = Field(1024, ge=16)
    """Tokens an episode may hold, prompt included."""
    max_sequences: int = Field(128, ge=1)
    """Episodes generated at once by one engine; more wait."""
    max_batch_tokens: int = Field(2048, ge=16)
    """Tokens one forward pass may hold."""
    cache_gib: float = Field(1.0, gt=0)
    """Key-value cache, GiB (CPU only)."""
    gpu_memory_share: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory (GPU only)."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one engine."""


class TrainerConfig(_Section):
    """Trainers: they hold the policy that learns, sharded over them (FSDP2)."""

    count: int = Field(1, ge=1)
    """Trainer actors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where they run."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations."""
    threads: int = Field(2, ge=1)
    """CPU threads of each trainer (CPU only)."""
    max_batch_tokens: int = Field(8192, ge=16)
    """Tokens of one forward and backward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate of AdamW."""
    final_learning_rate: float | None = Field(None, gt=0)
    """Learning rate at the last step, reached linearly; None keeps the peak."""
    rate_warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""


class WarmupConfig(_Section):
    """Warm start of the tiny policy on transcripts of a random agent."""

    steps: int = Field(400, ge=1)
    """Optimiser steps."""
    episodes_per_step: int = Field(24, ge=1)
    """Random episodes in each step; every one is used once."""
    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate."""


class Config(BaseSettings):
    """Train a policy with GRPO on a gymnasium environment of texts."""

    model_config = SettingsConfigDict(
        cli_prog_name="python -m learners.grpo", use_attribute_docstrings=True, extra="forbid",
        cli_kebab_case=True, nested_model_default_partial_update=True, protected_namespaces=(),
        cli_implicit_flags=True,
    )  # fmt: skip

    preset: str = "tiny-cpu"
    """`tiny-cpu`, `qwen2.5-7b`, `qwen2.5-7b-instruct`, or a TOML file's path."""
    config: Path | None = None
    """TOML file with any of these settings."""
    env: str = "research"
    """`research` (the preset's own environment) or a gymnasium id; `module:Id-v0` imports the module first."""
    env_kwargs: dict[str, Any] = {}
    """Keyword arguments of `gym.make`, JSON; on top of the preset's where `env` is `research`."""
    eval_env_kwargs: dict[str, Any] = {}
    """What changes in them for evaluation, JSON."""
    research: EnvironmentConfig = EnvironmentConfig()
    """The environment that `--env research` stands for; presets set it."""
    model: str = "tiny"
    """`tiny` (made on the spot), or a folder or Hub id in Hugging Face format."""
    chat: bool = False
    """Put the prompt through the tokenizer's chat template, as the user's turn."""
    name: str | None = None
    """Name of the run; its folder is `runs/<name>`. None numbers it."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    resume: bool = False
    """Continue the run `name` from its last checkpoint."""
    dry_run: bool = False
    """Print the resolved configuration and the placement, check them against the machine, and exit."""
    seed: int = Field(0, ge=0)
    """Seed of weights, question order and sampling."""
    algorithm: str = "grpo"
    """Objective; see `learners.objectives.ALGORITHMS`."""
    steps: int = Field(60, ge=0)
    """Rounds of rollout and training."""
    prompts: int = Field(48, ge=1)
    """Questions in a step."""
    group_size: int = Field(8, ge=2)
    """Episodes of each question."""
    minibatches: int = Field(1, ge=1)
    """Optimiser updates in a step, each on its own part of the questions; 1 is strictly on-policy."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature in training; evaluation is greedy."""
    max_turn_tokens: int = Field(64, ge=1)
    """Tokens the policy may write in one turn."""
    clip: float = Field(0.2, gt=0)
    """Bound of the probability ratio."""
    kl: float = Field(0.001, ge=0)
    """Coefficient of the k3 KL term to the first policy; 0 needs no reference model."""
    final_kl: float | None = Field(None, gt=0)
    """The coefficient at the last step, reached geometrically; None keeps it."""
    flat_episodes: int | None = Field(None, ge=1)
    """Episodes trained on of a group whose rewards are all the same: they teach by the KL term alone, and their weight
    stands for the others', so the objective's mean stays what it is. None takes all."""
    search_cost: float = Field(0.0, ge=0)
    """Reward taken for each search an episode makes (the environment must report `searches`)."""
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

    def environment(self) -> EnvironmentConfig:
        """The environment of this run, every keyword argument resolved; what the user gave overrides the preset."""
        base = self.research if self.env == "research" else EnvironmentConfig(id=self.env)
        evaluation = base.kwargs | base.eval_kwargs | self.env_kwargs | self.eval_env_kwargs
        return EnvironmentConfig(
            id=base.id,
            kwargs=base.kwargs | self.env_kwargs,
            eval_kwargs=evaluation,
            blind_kwargs=evaluation | base.blind_kwargs if base.blind_kwargs else {},
            stages=[Stage(kwargs=base.kwargs | s.kwargs | self.env_kwargs, until=s.until) for s in base.stages],
        )

    _toml: ClassVar[list[Path]] = []
    _saved: ClassVar[dict[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        tomls = [TomlConfigSettingsSource(settings_cls, path) for path in reversed(cls._toml)]
        return (init_settings, InitSettingsSource(settings_cls, cls._saved), *tomls)


def preset_path(name: str) -> Path:
    """The TOML file of a preset, by name or by path.

    Raises:
        ValueError: there is no such preset.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"--preset {name}: there is no such file")
        return Path(name)
    folder = Path(__file__).parent / "presets"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise ValueError(f"--preset {name} is unknown; known: {', '.join(known)}")
    return folder / f"{name}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ValueError: it is missing or broken; the message names file and line.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def load_config(arguments: Sequence[str]) -> Config:
    """Resolve preset, TOML file and command line.

    Raises:
        ValueError: a setting is unknown or impossible; the message names it.
    """
    chosen = {"preset": Config.model_fields["preset"].default, "config": None}
    for name in chosen:
        for at, argument in enumerate(arguments):
            if argument == f"--{name}" and at + 1 < len(arguments):
                chosen[name] = arguments[at + 1]
            elif argument.startswith(f"--{name}="):
                chosen[name] = argument.partition("=")[2]
    files = [preset_path(chosen["preset"])] + ([Path(chosen["config"])] if chosen["config"] else [])
    for file in files:
        read_toml(file)  # for its clear errors
    Config._toml, Config._saved = files, {}
    try:
        config = CliApp.run(Config, cli_args=list(arguments), cli_exit_on_error=True)
        Config._saved = saved_config(config)
        if not Config._saved:
            return config
        resumed = CliApp.run(Config, cli_args=list(arguments), cli_exit_on_error=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place} = {first['input']!r}: {first['msg']}") from None

    for name in ("seed", "model", "tiny", "warmup"):
        now, then = resumed.model_dump(mode="json")[name], Config._saved[name]
        if now != then:
            raise ValueError(f"--resume: the run began with {name} = {then}, another policy than {now}; leave it out")
    return resumed


def saved_config(config: Config) -> dict[str, Any]:
    """The settings that a run to be resumed was started with; those of the command line still override them."""
    path = config.runs / (config.name or "") / "checkpoint" / "state.json"
    if not config.resume or not path.exists():
        return {}
    saved: dict[str, Any] = json.loads(path.read_text())["config"]
    return {name: value for name, value in saved.items() if name not in {"resume", "dry_run", "runs", "name"}}
