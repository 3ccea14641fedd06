"""`python -m research_env`: play an episode by hand, bring data sets to this machine, make and serve indexes.

python -m research_env play --env ReSearch-Synthetic-v0 --seed 3
python -m research_env play --env ReSearch-MuSiQue-v0 --env-kwargs '{"split": "dev", "top_k": 3}'
python -m research_env data add musique musique_ans_v1.0_dev.jsonl
python -m research_env index build --corpus wiki-18.jsonl.gz --to elasticsearch://localhost:9200/wiki-18
python -m research_env serve --corpus elasticsearch://localhost:9200/wiki-18
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from rich.text import Text

from research_env import ENVIRONMENTS, data_cli, retrieval_cli
from research_env.env import ReSearchEnv
from research_env.errors import ConfigurationError, ResearchError
from research_env.protocols import ActionProtocol
from research_env.render import render

_HELP = """\
  search QUERY   look something up
  answer TEXT    answer, which ends the episode
  <think> …      a whole turn with its tags, sent as it stands
  Ctrl-D         leave
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0; 2 for a failure the user can mend, printed as one line; 130 after Ctrl-C.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a person types or a passage holds may fit no code page
            stream.reconfigure(errors="replace")
    try:
        parsed = _parser().parse_args(arguments)
        status: int = parsed.run(parsed)
    except ResearchError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research_env", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    play = verbs.add_parser("play", help="answer a question yourself, in the terminal")
    play.add_argument("--env", required=True, metavar="ID", help=f"environment: {', '.join(ENVIRONMENTS)}")
    play.add_argument("--env-kwargs", default="{}", metavar="JSON", help="keyword arguments of gym.make, one object")
    play.add_argument("--seed", type=int, default=0, metavar="N", help="which question; default: %(default)s")
    play.set_defaults(run=_play)
    data_cli.add_parser(verbs)
    retrieval_cli.add_parsers(verbs)
    return parser


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
                turn = _turn(input("> ").strip(), env.protocol)
            except EOFError:  # Ctrl-D
                print()
                return 0
            if turn is None:
                print(_HELP)
                continue
            observation, reward, terminated, truncated, info = env.step(turn)
            ended = terminated or truncated
            _show(("policy", turn), ("environment", observation))
            print()
    finally:
        env.close()
    _report(reward, truncated, info)
    return 0


def _make(env_id: str, kwargs: str) -> ReSearchEnv:
    name = env_id.removeprefix("research_env:")
    if name not in ENVIRONMENTS:
        close = difflib.get_close_matches(name, ENVIRONMENTS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"--env {env_id!r} is unknown; known: {', '.join(ENVIRONMENTS)}{hint}")
    try:
        settings = json.loads(kwargs)
    except ValueError as error:
        raise ConfigurationError(f"--env-kwargs {kwargs!r} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigurationError(f"--env-kwargs {kwargs!r} is not a JSON object; write e.g. '{{\"top_k\": 3}}'")
    env = gym.make(name, disable_env_checker=True, **settings).unwrapped
    assert isinstance(env, ReSearchEnv)
    return env


def _turn(typed: str, protocol: ActionProtocol) -> str | None:
    """What a person typed as a turn of the policy; None where it is none, which costs the person nothing."""
    verb, _, rest = typed.partition(" ")
    if verb == "search" and rest:
        return protocol.search_turn("", rest)
    if verb == "answer" and rest:
        return protocol.answer_turn("", rest)
    return typed if "<" in typed else None


def _report(reward: float, truncated: bool, info: dict[str, Any]) -> None:
    """Print how an episode has ended."""
    if truncated:
        print("The episode was cut off: it had reached its limit of searches or turns.")
    elif info["malformed"]:
        print(f"That turn was malformed: {info['malformed']}.")
    print(
        f"reward {reward:g}   EM {info['em']:g}   F1 {info['f1']:.2f}   format {'ok' if info['format_ok'] else 'wrong'}"
    )
    print(f"your answer:    {_safe(info['answer'] or '(none)')}")
    print(f"golden answers: {_safe(' | '.join(info['golden_answers']))}")
    for number, hop in enumerate(info["evidence"], 1):
        found = f"found by search {hop['found_at']}" if hop["found_at"] else "not found"
        print(f"hop {number}: {_safe(hop['question'])} -> {_safe(hop['answer'])} ({found})")


def _show(*parts: tuple[str, str]) -> None:
    """Print parts of a transcript, in colour on a terminal."""
    coloured = render(parts).rstrip()
    print(coloured if sys.stdout.isatty() else Text.from_ansi(coloured).plain)


def _safe(text: str) -> str:
    """`text` without characters that steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


if __name__ == "__main__":
    sys.exit(main())
