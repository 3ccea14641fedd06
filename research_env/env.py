"""`ReSearchEnv`: one episode is one question; an action is the text of one turn of the policy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from research_env import loading, names, order, plugins, wording
from research_env.dataset_checks import mended_question
from research_env.episode import Episode, Move, Rules
from research_env.errors import ConfigurationError
from research_env.info import Info
from research_env.random_turns import RandomTurns
from research_env.render import render
from research_env.spaces import Prose
from research_env.text import control_character, short
from research_env.tools.base import Context, run
from research_env.types import Question, Result, Status

_RUNNING = Status.RUNNING


class Settings(BaseModel):
    """Keyword arguments of `gym.make`, all of them JSON. Others (`world_seed=7`) go to the data set's loader."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dataset: str = "musique"
    """Data set, or `module:load` of your own; the environment id sets it."""
    split: str = "train"
    """Which questions: `"train"`, `"dev"`, and where the set has it `"test"`."""
    hops: tuple[int, ...] | None = None
    """Keep questions with these hop counts only, e.g. `[2, 3]` or `2`; None keeps all."""
    stride: int | None = Field(None, ge=1)
    """How many places of the order a `reset` without a seed goes on; None jumps far, see `research_env.order.jump`.
    With `stride=n`, n environments with the seeds s … s+n-1 ask different questions, until each has had its n-th part
    of them."""
    corpus: str = "pooled"
    """What is searched: `"pooled"` (the data set's own passages), `"none"`, or the address of a retriever; see
    `research_env.retrieval.addresses`."""
    retrieval: dict[str, Any] = {}
    """Options of the retriever, e.g. `{"timeout": 5.0}`."""
    top_k: int = Field(5, ge=1, le=100)
    """Passages a search returns."""
    max_searches: int = Field(4, ge=0)
    """Searches an episode may make; asking for one more truncates it."""
    max_turns: int = Field(10, ge=1)
    """Turns an episode may take; ending the last one without an answer truncates it."""
    protocol: str = "research"
    """Tags of the policy's actions; see `research_env.protocols`."""
    tools: tuple[str, ...] = ("search",)
    """What the policy can call: names of `research_env.tools`, or `module:Class`."""
    instructions: str | None = None
    """Prompt template with `{question}` in it; None takes the protocol's own."""
    reward: str = "em"
    """`"em"`, `"f1"`, `"research"` (the paper's), or `module:function` of an `Outcome`."""
    on_malformed: Literal["end", "feedback"] = "end"
    """A malformed turn ends the episode with reward 0 (the paper), or is answered with one corrective line."""

    @field_validator("hops", mode="before")
    @classmethod
    def _one_or_many(cls, hops: Any) -> Any:
        if isinstance(hops, int) and not isinstance(hops, bool):
            return (hops,)
        if hops is not None and not isinstance(hops, list | tuple):
            raise ValueError("give a hop count or a list of them, e.g. 2 or [2, 3]")
        return hops

    @field_validator("instructions")
    @classmethod
    def _holds_the_question(cls, instructions: str | None) -> str | None:
        if instructions and instructions.count("{question}") != 1:
            raise ValueError("write {question} in it, exactly once")
        if instructions and (found := control_character(instructions)):
            raise ValueError(f"it holds the control character {found}; in JSON and TOML write \\\\boxed for \\boxed")
        return instructions


class ReSearchEnv(gym.Env[str, str]):
    """A question to answer by searching.

    `reset()` returns the prompt, `step(turn)` only the text that is new to the policy. The reward is 0.0 until the
    episode ends. `reset(seed=s)` takes the s-th question of one fixed, well mixed order of N, so that seeds 0 … N-1 are
    N different questions, and seed N is the first again. Each further `reset()` takes another one, N in all before one
    comes again; see `research_env.order`. `options={"question_id": …}` takes that question.

    `info` is described in `research_env.info.Info`. Gold answers are in it only when the episode has ended.

    Raises:
        ConfigurationError: a keyword argument that cannot work.
        DataMissing: the data set is not on this machine.
        RetrievalError: from `step`, a search could not be carried out; the episode can be stepped again.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        self.settings = _validated(settings)
        self.render_mode = render_mode
        # The keys of what a process shares must be hashable, so dictionaries are passed on as JSON with sorted keys.
        options = json.dumps(self.settings.model_extra, sort_keys=True)
        self._key = loading.DatasetKey(self.settings.dataset, options, tuple(Settings.model_fields))
        retrieval = json.dumps(self.settings.retrieval, sort_keys=True)
        searched = (self._key, self.settings.corpus, retrieval)
        # Not opened yet: that may build an index, and many environments never search.
        context = Context(searcher=loading.Opener(*searched), top_k=self.settings.top_k)
        self.tools = plugins.tools(self.settings.tools, context)
        self.protocol = plugins.protocol(self.settings.protocol, tuple(self.tools.values()))
        reward = plugins.reward(self.settings.reward)
        self._chosen = (self._key, self.settings.split, self.settings.hops)
        loading.questions(*self._chosen)  # so that a wrong split is an error here
        corpus = loading.corpus(*searched)
        rules = Rules(
            self.settings.max_searches, self.settings.max_turns, feedback=self.settings.on_malformed == "feedback"
        )
        instructions = self.settings.instructions or self.protocol.instructions
        gold_known = loading.knows_gold(*searched)
        self._episode = Episode(self.protocol, self.tools, rules, reward, instructions, corpus, gold_known)
        # A dictionary of its own: gymnasium declares `metadata` on the class, where all environments share it.
        self.metadata = {
            **type(self).metadata,
            "stop": list(self.protocol.stop),
            "corpus": corpus,
            "tools": [tool.schema for tool in self.tools.values()],
        }
        # The last turn can only answer, because no later turn could read what it finds.
        may_search = self.settings.max_searches > 0 and self.settings.max_turns > 1
        self._turns = RandomTurns(self.protocol, may_search)
        self.observation_space = Prose()
        self.action_space = Prose(sampler=self._turns.sample)
        self._place: int | None = None
        self._ready: tuple[str, Move, Sequence[Result]] | None = None

    @property
    def num_questions(self) -> int:
        """How many questions there are with this split and these hop counts; also `len(env.unwrapped)`."""
        # Asked for each time and never kept here: an environment that is pickled must not take all of them with it.
        return len(loading.questions(*self._chosen))

    def __len__(self) -> int:
        return self.num_questions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:  # type: ignore[override]
        """Begin an episode.

        Returns:
            The prompt (instructions and question) and `info`.

        Raises:
            ConfigurationError: `options` names a question that the split does not have.
        """
        super().reset(seed=seed)
        self._ready = None
        question, place = self._choose_question(seed, {} if options is None else options)
        prompt = self._episode.begin(mended_question(question), place, self.num_questions)
        self._turns.start(self._episode.asked)
        return prompt, self._episode.info

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:  # type: ignore[override]
        """Take one turn. Any `str` is legal.

        Returns:
            `(new text, reward, terminated, truncated, info)`; the text is empty when the episode has ended.

        Raises:
            gymnasium.error.ResetNeeded: the episode has ended.
            RetrievalError: the search failed; nothing has changed, the same step may be tried again.
        """
        # A vector environment has run the calls of this turn already, and left the results with `prepare`.
        if self._ready is not None and self._ready[0] == action:
            _, move, results = self._ready
        else:
            move = self.act(action)
            results = run(self.tools, move.calls)
        step = self._episode.observe(move, results)
        self._ready = None  # after `observe`, which raises an outage: the same step may then be tried again
        if move.calls:
            self._turns.read(step.observation)
        status = step.status
        if status is _RUNNING:
            return step.observation, 0.0, False, False, step.info
        return step.observation, step.reward, status.terminated, status.truncated, step.info

    def act(self, action: str) -> Move:
        """Parse and judge a turn without taking it: the first half of `step`. Nothing changes.

        Raises:
            gymnasium.error.ResetNeeded: no episode is running.
        """
        if self._episode.status is not _RUNNING:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        if not isinstance(action, str):
            raise TypeError(f"an action is the text of one turn, a str; got {type(action).__name__}: {short(action)}")
        return self._episode.act(action)

    def prepare(self, action: str, move: Move, results: Sequence[Result]) -> None:
        """Leave the results of a move's calls for the next `step(action)`. See `research_env.vector`."""
        self._ready = (action, move, results)

    def prepared(self, action: str) -> bool:
        """Whether `step(action)` will find its results."""
        return self._ready is not None and self._ready[0] == action

    def render(self) -> str | None:  # type: ignore[override]
        """The episode so far as coloured text (`render_mode="ansi"`)."""
        if self.render_mode != "ansi":
            return None
        if not self._episode.transcript:
            raise gym.error.ResetNeeded("there is no episode to show: call reset() before render()")
        return render(self._episode.transcript)

    def _choose_question(self, seed: int | None, options: Any) -> tuple[Question, int]:
        """The question of this reset, and its place in the order."""
        if not isinstance(options, Mapping):
            raise ConfigurationError(f'reset options {short(options)}: give a dictionary, e.g. {{"question_id": "…"}}')
        unknown = set(options) - {"question_id"}
        if unknown:
            raise ConfigurationError(f"reset options {sorted(unknown, key=str)} are unknown; known: question_id")
        size = self.num_questions
        if "question_id" in options:
            index = self._index(options["question_id"])
            return loading.questions(*self._chosen)[index], order.place_of(index, size)
        # Without a seed, the first reset takes a random place.
        if seed is not None:
            self._place = seed % size
        elif self._place is None:
            self._place = int(self.np_random.integers(size))
        else:
            self._place = (self._place + (self.settings.stride or order.jump(size))) % size
        return loading.questions(*self._chosen)[order.spread(self._place, size)], self._place

    def find_question(self, wanted: str) -> Question:
        """The question with this id, with its gold answers: for scripted agents and reports, never for a policy.

        Raises:
            ConfigurationError: the split does not have it.
        """
        return loading.questions(*self._chosen)[self._index(wanted)]

    def _index(self, wanted: Any) -> int:
        positions = loading.positions(*self._chosen)
        if not isinstance(wanted, str) or wanted not in positions:
            raise ConfigurationError(
                f"question_id={wanted!r} is not among the {len(positions):,} questions of {self.settings.dataset} "
                f"{self.settings.split}{names.did_you_mean(str(wanted), positions)}"
            )
        return positions[wanted]


def _validated(settings: dict[str, Any]) -> Settings:
    settings = {name: _with_paths_as_text(value) for name, value in settings.items()}
    try:
        validated = Settings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{wording.place(first)}={short(first['input'])}: {wording.fault(first)}") from None
    # pydantic knows nothing of the loader's keyword arguments and the retriever's options.
    for name, value in {**(validated.model_extra or {}), "retrieval": validated.retrieval}.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            # Without the value: among a retriever's options it may be a secret.
            raise ConfigurationError(f"{name}: keyword arguments of gym.make must be JSON ({error})") from None
    return validated


def _with_paths_as_text(value: Any) -> Any:
    """`value` with every `pathlib.Path` in it as its text: paths come as such from nearly every script."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {key: _with_paths_as_text(each) for key, each in value.items()}
    return [_with_paths_as_text(each) for each in value] if isinstance(value, list | tuple) else value
