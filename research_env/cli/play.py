"""`python -m research_env play …`: answer questions yourself, in the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from rich.text import Text

from research_env import names
from research_env.env import ReSearchEnv
from research_env.errors import ConfigurationError, ResearchError
from research_env.protocols.base import Answer, Malformed
from research_env.registration import ENVIRONMENTS
from research_env.render import render
from research_env.text import one_line, printable
from research_env.types import Status

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
  search QUERY   look something up: {search}
  answer TEXT    answer, which ends the episode: {answer}
  <…> …          a whole turn in such tags, sent as it stands
  next           give this question up and take the next
  Ctrl-D         leave
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `play`. It sets `run`, which raises ResearchError; the caller prints it."""
    play = subparsers.add_parser("play", help="answer questions yourself, in the terminal")
    known = f"environment: {', '.join(ENVIRONMENTS)}, or your own, as module:Id-v0"
    play.add_argument("--env", required=True, metavar="ID", help=known)
    play.add_argument("--env-kwargs", default="{}", metavar="JSON", help="keyword arguments of gym.make, one object")
    play.add_argument("--seed", type=int, default=0, metavar="N", help="the first question; default: %(default)s")
    play.set_defaults(run=_play)


def _play(arguments: argparse.Namespace) -> int:
    if arguments.seed < 0:
        raise ConfigurationError(f"--seed {arguments.seed}: give 0 or more")
    game = _Game(_make(arguments.env, arguments.env_kwargs), _reader())
    try:
        for seed in count(arguments.seed):
            game.question(seed)
            print("\nEnter: the next question. Ctrl-D: leave.")
            game.read()
    except EOFError:  # Ctrl-D
        print(f"\nYou answered {game.answered} of {game.asked} questions, {game.right} of them right.")
    finally:
        game.env.close()
    return 0


class _Game:
    """A person at an environment. `read` returns a typed line and raises EOFError at Ctrl-D."""

    def __init__(self, env: gym.Env[str, str], read: Callable[[], str]) -> None:
        self.env, self.read = env, read
        assert isinstance(env.unwrapped, ReSearchEnv)
        # The wrappers stay around `env`; but they hide the protocol.
        self.inner = env.unwrapped
        protocol = self.inner.protocol
        self.help = _HELP.format(search=protocol.search_turn("…", "QUERY"), answer=protocol.answer_turn("…", "TEXT"))
        self.asked = self.answered = self.right = 0

    def question(self, seed: int) -> None:
        """Play one episode, or a part of it."""
        prompt, info = _guarded(self.env.reset, seed=seed)
        self.asked += 1
        _show(("prompt", prompt))
        print(f"\n{self.help}\n{self._left(info)}")
        try:
            while (turn := self._turn()) is not None:
                observation, reward, terminated, truncated, info = _guarded(self.env.step, turn)
                _show(("policy", turn), ("environment", observation))
                print()
                if terminated or truncated:
                    self.answered += info.get("status") == Status.ANSWERED
                    self.right += info.get("em") == 1
                    self._report(reward, info)
                    return
                print(self._left(info))
        except EOFError:
            print()
            self._give_away(info)
            raise
        self._give_away(info)

    def _turn(self) -> str | None:
        """The next turn; None where the question is given up. A slip takes no turn: what is wrong is told."""
        held = None
        while True:
            typed = self.read().strip()
            if held is not None and not typed:
                return held
            verb, _, rest = typed.partition(" ")
            if typed == "next":
                return None
            held = None
            if verb == "search" and rest:
                return self.inner.protocol.search_turn("", rest)
            if verb == "answer" and rest:
                return self.inner.protocol.answer_turn("", rest)
            doubt = self._doubt(typed)
            if not doubt:
                return typed
            if "<" not in typed:  # words that are no turn in any protocol
                print(self.help)
                continue
            held = typed
            print(f"Not sent, for {doubt}. Press Enter to send it all the same, or type another turn.")

    def _doubt(self, typed: str) -> str:
        """Why a turn is hardly what a person means, as a clause; empty for a good one."""
        move = _guarded(self.inner.act, typed)
        if isinstance(move.action, Malformed):
            return f"it would be malformed: {printable(one_line(move.action.reason))}"
        if isinstance(move.action, Answer) and not move.action.text.strip():
            return f"it would answer with nothing; write {self.inner.protocol.answer_turn('…', 'TEXT')}"
        if move.turn.cut:
            return "what follows its action would be dropped"
        return "" if move.turn.format_ok else "it has not quite the form of a turn as above"

    def _left(self, info: Mapping[str, Any]) -> str:
        settings = self.inner.settings
        searches, turns = settings.max_searches - info["searches"], settings.max_turns - info["turn"]
        last = ", so this turn must answer" if turns == 1 else ""
        return f"{_many(searches, 'search', 'searches')} and {_many(turns, 'turn', 'turns')} left{last}"

    def _give_away(self, info: Mapping[str, Any]) -> None:
        """Show the answers of a question that is left."""
        golden = self.inner.find_question(info["question_id"]).answers
        print(f"golden answers: {printable(' | '.join(golden))}")

    def _report(self, reward: float, info: Mapping[str, Any]) -> None:
        """Print how an episode has ended."""
        settings, status = self.inner.settings, info.get("status")
        if status == Status.OUT_OF_SEARCHES:
            print(f"The episode was cut off: it had used its {_many(settings.max_searches, 'search', 'searches')}.")
        elif status == Status.OUT_OF_TURNS:
            print(f"The episode was cut off: turn {settings.max_turns} is the last, and it did not answer.")
        elif info.get("malformed"):
            print(f"That turn was malformed: {printable(one_line(info['malformed']))}.")
        form = "ok" if info["format_ok"] else "wrong"
        print(f"reward {reward:g}   EM {info['em']:g}   F1 {info['f1']:.2f}   format {form}")
        print(f"your answer:    {printable(info['answer'] or '(none)')}")
        print(f"golden answers: {printable(' | '.join(info['golden_answers']))}")
        if info.get("evidence") is None:
            print("which search found what is unknown: the gold passages are not known by their ids in this corpus")
        for number, hop in enumerate(info.get("evidence") or [], 1):
            found = f"found by search {hop['found_at']}" if hop["found_at"] else "not found"
            print(f"hop {number}: {printable(hop['question'])} -> {printable(hop['answer'])} ({found})")


def _reader() -> Callable[[], str]:
    """Reads a line, in a terminal with editing and the history of this game."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return lambda: input("> ")
    from prompt_toolkit import PromptSession  # only here, because it takes a quarter of a second

    session: PromptSession[str] = PromptSession("> ")
    return session.prompt


def _make(env_id: str, text: str) -> gym.Env[str, str]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--env-kwargs {text!r} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigurationError(f"--env-kwargs {text!r} is not a JSON object; write e.g. '{{\"top_k\": 3}}'")
    try:
        env: gym.Env[str, str] = gym.make(env_id, **{"disable_env_checker": True, **settings})
    except ResearchError:
        raise
    except gym.error.UnregisteredEnv:
        name = env_id.rpartition(":")[2]
        hint = names.did_you_mean(name, [*ENVIRONMENTS, *gym.registry])
        raise ConfigurationError(f"--env {env_id!r} is unknown; known: {', '.join(ENVIRONMENTS)}{hint}") from None
    except Exception as error:  # somebody else's environment, or its module
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ConfigurationError(f"--env {env_id!r} cannot be made ({reason})") from error
    if not isinstance(env.unwrapped, ReSearchEnv):
        kind = type(env.unwrapped).__name__
        env.close()
        raise ConfigurationError(f"--env {env_id!r} is a {kind}; play needs a ReSearchEnv: {', '.join(ENVIRONMENTS)}")
    return env


def _guarded(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what may run somebody else's tool, retriever, protocol, reward or wrapper."""
    try:
        return call(*args, **kwargs)
    except ResearchError:
        raise
    except Exception as error:
        raise ResearchError(f"the turn failed ({type(error).__name__}: {error})") from error


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _show(*parts: tuple[str, str]) -> None:
    """Print parts of a transcript, in colour on a terminal."""
    # `render` always colours, so the colours are removed again where the output is a file or a pipe.
    coloured = render(parts).rstrip()
    print(coloured if sys.stdout.isatty() else Text.from_ansi(coloured).plain)
