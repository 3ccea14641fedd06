"""`ReSearchEnv`: one episode is one question; an action is the text of one turn of the policy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any, Literal

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from research_env import loading
from research_env.errors import ConfigurationError
from research_env.evidence import Evidence
from research_env.plugins import choose, load
from research_env.protocols import PROTOCOLS, Action, ActionProtocol, Answer, Malformed, Search
from research_env.questions import Question
from research_env.render import render
from research_env.rewards import REWARDS, Outcome, exact_match, f1
from research_env.spaces import Prose, RandomTurns


class Settings(BaseModel):
    """Keyword arguments of `gym.make`, all of them JSON. Others (`world_seed=7`) go to the data set's loader."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dataset: str = "musique"
    """Data set; the environment id has set it."""
    split: str = "train"
    """Which questions: `"train"`, `"dev"`, and where the set has it `"test"`."""
    hops: tuple[int, ...] | None = None
    """Keep questions with these hop counts only; None keeps all."""
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
    instructions: str | None = None
    """Prompt template with `{question}` in it; None takes the protocol's own."""
    reward: str = "em"
    """`"em"`, `"f1"` or `"research"` (the paper's)."""
    on_malformed: Literal["end", "feedback"] = "end"
    """A malformed turn ends the episode with reward 0 (the paper), or is answered with one corrective line."""


class ReSearchEnv(gym.Env[str, str]):
    """A question to answer by searching.

    `reset()` returns the prompt, `step(turn)` only the text that is new to the policy. The reward is 0.0 until the
    episode ends. `reset(seed=s)` takes the s-th question of one fixed, well mixed order, and each further `reset()`
    the next, so that seeds 0 … N-1 are N different questions; `options={"question_id": …}` takes a certain one.

    `info` has the same keys at every step. `golden_answers`, `em`, `f1`, `format_ok`, `answer`, `gold_found`,
    `evidence` and `answer_in_context` are None until the episode has ended.

    Raises:
        ConfigurationError: a keyword argument that cannot work.
        DataMissing: the data set is not on this machine.
        RetrievalError: from `step`, a search could not be carried out; the episode can be stepped again.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        self.settings = _validated(settings)
        self.render_mode = render_mode
        self.protocol: ActionProtocol = load(PROTOCOLS, "protocol", self.settings.protocol)()
        self._reward = choose(REWARDS, "reward", self.settings.reward)
        self._template = self.settings.instructions or self.protocol.instructions
        if self._template.count("{question}") != 1:
            raise ConfigurationError(f"instructions={self._template!r}: write {{question}} in it, exactly once")
        options = json.dumps(self.settings.model_extra, sort_keys=True)
        source = loading.Source(self.settings.dataset, options, tuple(Settings.model_fields))
        self._questions = loading.questions(source, self.settings.split, self.settings.hops)
        retrieval = json.dumps(self.settings.retrieval, sort_keys=True)
        self._open_retriever = lambda: loading.retriever(source, self.settings.corpus, retrieval)
        self._corpus = loading.corpus(source, self.settings.corpus, retrieval)
        self.metadata = {**type(self).metadata, "stop": list(self.protocol.stop), "corpus": self._corpus}
        self._turns = RandomTurns(self.protocol)
        self.observation_space = Prose()
        self.action_space = Prose(sampler=self._turns.sample)
        self._position: int | None = None
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        Returns:
            The prompt (instructions and question) and `info`.

        Raises:
            ConfigurationError: `options` names a question that the split does not have.
        """
        super().reset(seed=seed)
        self._question = self._choose_question(seed, options or {})
        self._evidence = Evidence(self._question)
        self._turn = self._searches = 0
        self._format_ok = True
        self._ended = False
        asked = self.protocol.neutralise(self._question.text)
        self._turns.start(asked)
        before, after = self._template.split("{question}")
        prompt = before + asked + after
        self._transcript = [("prompt", prompt)]
        return prompt, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one turn. Any `str` is legal.

        Returns:
            `(new text, reward, terminated, truncated, info)`; the text is empty when the episode has ended.

        Raises:
            gymnasium.error.ResetNeeded: the episode has ended.
            RetrievalError: the search failed; nothing has changed, the same step may be tried again.
        """
        if self._ended:
            raise gym.error.ResetNeeded("the episode has ended: call reset() before step()")
        turn = self.protocol.parse(action)
        parsed: Action = turn.action
        last = self._turn + 1 >= self.settings.max_turns
        passages = []
        truncated = False
        observation = ""
        if isinstance(parsed, Search):
            truncated = last or self._searches >= self.settings.max_searches
            if not truncated:  # first of all, so that a failure leaves the episode as it was
                hits = self._open_retriever().search([parsed.query], self.settings.top_k)[0]
                passages = [hit.passage for hit in hits]
                observation = self.protocol.result(passages)
                self._searches += 1
                self._evidence.saw(self._searches, passages)
                self._turns.read(observation)
        elif isinstance(parsed, Malformed) and self.settings.on_malformed == "feedback":
            truncated = last
            observation = "" if last else self.protocol.feedback(parsed)
        terminated = not truncated and not observation
        self._turn += 1
        self._format_ok &= turn.format_ok
        self._transcript += [("policy", turn.text), ("environment", observation)]
        info = self._info()
        info.update(
            cut=turn.cut,
            action=type(parsed).__name__.lower(),
            malformed=parsed.reason if isinstance(parsed, Malformed) else None,
            passages=[p.id for p in passages],
        )
        if not (terminated or truncated):
            return observation, 0.0, False, False, info
        self._ended = True
        return "", self._score(parsed, truncated, info), terminated, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """The episode so far as coloured text (`render_mode="ansi"`)."""
        return render(self._transcript) if self.render_mode == "ansi" else None

    def _score(self, parsed: Action, truncated: bool, info: dict[str, Any]) -> float:
        """Fill the keys of `info` that only an ended episode has, and return the reward."""
        answer = parsed.text if isinstance(parsed, Answer) else None
        golden = self._question.answers
        outcome = Outcome(
            answer=answer,
            em=exact_match(answer, golden) if answer else 0.0,
            f1=f1(answer, golden) if answer else 0.0,
            format_ok=self._format_ok and answer is not None,
            over_length=truncated,
        )
        info.update(
            answer=answer,
            em=outcome.em,
            f1=outcome.f1,
            format_ok=outcome.format_ok,
            golden_answers=list(golden),
            gold_found=list(self._evidence.gold_found),
            evidence=self._evidence.hops,
            answer_in_context=self._evidence.answer_in_context,
        )
        return float(self._reward(outcome))

    def _info(self) -> dict[str, Any]:
        return {
            "question_id": self._question.id,
            "hops": self._question.hops,
            "turn": self._turn,
            "searches": self._searches,
            "corpus": self._corpus,
            "action": None,
            "cut": False,
            "malformed": None,
            "passages": [],
            "answer": None,
            "em": None,
            "f1": None,
            "format_ok": None,
            "golden_answers": None,
            "gold_found": None,
            "evidence": None,
            "answer_in_context": None,
        }

    def _choose_question(self, seed: int | None, options: Mapping[str, Any]) -> Question:
        unknown = set(options) - {"question_id"}
        if unknown:
            raise ConfigurationError(f"reset options {sorted(unknown)} are unknown; known: question_id")
        if "question_id" in options:
            return self.find_question(options["question_id"])
        if seed is not None:
            self._position = seed
        elif self._position is None:
            self._position = int(self.np_random.integers(len(self._questions)))
        else:
            self._position += 1
        return self._questions[spread(self._position, len(self._questions))]

    def find_question(self, wanted: str) -> Question:
        """The question with this id, gold answers and all: for scripted agents and reports, never for a policy.

        Raises:
            ConfigurationError: the split does not have it.
        """
        ids = _question_ids(self._questions)
        if not isinstance(wanted, str) or wanted not in ids:
            close = difflib.get_close_matches(str(wanted), ids, 1)
            raise ConfigurationError(
                f"question_id={wanted!r} is not among the {len(ids):,} questions of {self.settings.dataset} "
                f"{self.settings.split}" + (f"; did you mean {close[0]!r}?" if close else "")
            )
        return self._questions[ids[wanted]]


def spread(position: int, size: int) -> int:
    """Place number `position` of a fixed order of `range(size)` in which any run of neighbours is a fair sample.

    Steps by the golden ratio of `size`: a bijection, and balanced over whatever the file is sorted by.
    """
    stride = max(1, round(size * 0.6180339887))
    while gcd(stride, size) != 1:
        stride += 1
    return position * stride % size


_ids: dict[int, tuple[Sequence[Question], dict[str, int]]] = {}


def _question_ids(questions: Sequence[Question]) -> dict[str, int]:
    """Question id -> index, made at first use. The sequence is kept beside it, so that its `id()` stays its own."""
    if id(questions) not in _ids:
        _ids[id(questions)] = questions, {question.id: i for i, question in enumerate(questions)}
    return _ids[id(questions)][1]


def _validated(settings: dict[str, Any]) -> Settings:
    try:
        validated = Settings(**settings)
        json.dumps(validated.model_extra)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{place}={first['input']!r}: {first['msg']}") from None
    except TypeError as error:
        raise ConfigurationError(f"keyword arguments of gym.make must be JSON ({error})") from None
    return validated
