"""`python -m research_env play …`: answer a question yourself, in the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from rich.text import Text

from research_env import names
from research_env.env import ReSearchEnv
from research_env.errors import ConfigurationError, ResearchError
from research_env.registration import ENVIRONMENTS
from research_env.render import render
from research_env.text import printable

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
  search QUERY   look something up
  answer TEXT    answer, which ends the episode
  <think> …      a whole turn with its tags, sent as it stands
  Ctrl-D         leave
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `play`. It sets `run`, which raises ResearchError; the caller prints it."""
    play = subparsers.add_parser("play", help="answer a question yourself, in the terminal")
    play.add_argument("--env", required=True, metavar="ID", help=f"environment: {', '.join(ENVIRONMENTS)}")
    play.add_argument("--env-kwargs", default="{}", metavar="JSON", help="keyword arguments of gym.make, one object")
    play.add_argument("--seed", type=int, default=0, metavar="N", help="which question; default: %(default)s")
    play.set_defaults(run=_play)


def _play(arguments: argparse.Namespace) -> int:
    env = _make(arguments.env, arguments.env_kwargs)
    try:
        if arguments.seed < 0:
            raise ConfigurationError(f"--seed {arguments.seed}: give 0 or more")
        prompt, info = env.reset(seed=arguments.seed)
        _show(("prompt", prompt))
        print(f"\n{_HELP}")
        ended = False
        while not ended:
            try:
                turn = _turn(input("> ").strip(), env)
            except EOFError:  # Ctrl-D
                print()
                return 0
            if turn is None:
                print(_HELP)
                continue
            try:
                observation, reward, terminated, truncated, info = env.step(turn)
            except ResearchError:
                raise
            except Exception as error:  # of somebody else's tool, retriever, protocol or reward
                raise ResearchError(f"the turn failed ({type(error).__name__}: {error})") from error
            ended = terminated or truncated
            _show(("policy", turn), ("environment", observation))
            print()
    finally:
        env.close()
    _report(reward, truncated, info)
    return 0


def _make(env_id: str, kwargs: str) -> ReSearchEnv:
    # Gymnasium's own form, `module:id`, is accepted, too: people copy it from their `gym.make`.
    name = env_id.removeprefix("research_env:")
    if name not in ENVIRONMENTS:
        hint = names.did_you_mean(name, ENVIRONMENTS)
        raise ConfigurationError(f"--env {env_id!r} is unknown; known: {', '.join(ENVIRONMENTS)}{hint}")
    try:
        settings = json.loads(kwargs)
    except ValueError as error:
        raise ConfigurationError(f"--env-kwargs {kwargs!r} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigurationError(f"--env-kwargs {kwargs!r} is not a JSON object; write e.g. '{{\"top_k\": 3}}'")
    # Unwrapped, because gymnasium's own wrapper that checks the order of calls hides `protocol`.
    env = gym.make(name, disable_env_checker=True, **settings).unwrapped
    assert isinstance(env, ReSearchEnv)
    return env


def _turn(typed: str, env: ReSearchEnv) -> str | None:
    """What a person typed as a turn of the policy; None where it is not one: then no turn is taken."""
    verb, _, rest = typed.partition(" ")
    if verb == "search" and rest:
        return env.protocol.search_turn("", rest)
    if verb == "answer" and rest:
        return env.protocol.answer_turn("", rest)
    # With a tag in it the text is sent as it is, so that a person can try a malformed turn, too.
    return typed if "<" in typed else None


def _report(reward: float, truncated: bool, info: Mapping[str, Any]) -> None:
    """Print how an episode has ended."""
    if truncated:
        print("The episode was cut off: it had reached its limit of searches or turns.")
    elif info["malformed"]:
        print(f"That turn was malformed: {info['malformed']}.")
    print(
        f"reward {reward:g}   EM {info['em']:g}   F1 {info['f1']:.2f}   format {'ok' if info['format_ok'] else 'wrong'}"
    )
    print(f"your answer:    {printable(info['answer'] or '(none)')}")
    print(f"golden answers: {printable(' | '.join(info['golden_answers']))}")
    if info["evidence"] is None:
        print("which search found what is unknown: the gold passages are not known by their ids in this corpus")
    for number, hop in enumerate(info["evidence"] or [], 1):
        found = f"found by search {hop['found_at']}" if hop["found_at"] else "not found"
        print(f"hop {number}: {printable(hop['question'])} -> {printable(hop['answer'])} ({found})")


def _show(*parts: tuple[str, str]) -> None:
    """Print parts of a transcript, in colour on a terminal."""
    # `render` always colours, so the colours are removed again where the output is a file or a pipe.
    coloured = render(parts).rstrip()
    print(coloured if sys.stdout.isatty() else Text.from_ansi(coloured).plain)
