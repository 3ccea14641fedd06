"""Golden transcripts: fixed episodes whose every text, reward and `info` must stay the same, byte for byte.

    python -m tests.research_env.golden FOLDER [transcripts.jsonl]

plays every case (FOLDER holds the published samples) and prints the digest of each; `golden.json` keeps those digests
as they were recorded before the environment was rebuilt around `Episode`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

DIGESTS = Path(__file__).with_name("golden.json")
"""Case -> `[episodes, sha256]`."""

INFO = (
    "question_id", "hops", "turn", "searches", "corpus", "action", "cut", "malformed", "passages", "answer", "em", "f1",
    "format_ok", "golden_answers", "gold_found", "evidence", "answer_in_context",
)  # fmt: skip

SYNTHETIC: dict[str, dict[str, Any]] = {
    "default": {},
    "test, 3 hops, one passage": {"split": "test", "hops": [3], "top_k": 1},
    "another world": {"world_seed": 7, "num_entities": 300, "hops": [1, 2, 2, 3]},
    "no search allowed": {"max_searches": 0},
    "one search, two turns": {"max_searches": 1, "max_turns": 2},
    "one turn": {"max_turns": 1, "reward": "f1"},
    "feedback": {"on_malformed": "feedback", "reward": "research", "max_turns": 4},
    "own instructions": {"instructions": "{question}\n", "split": "dev", "top_k": 2},
    "no corpus": {"corpus": "none", "reward": "research"},
}
MUSIQUE: dict[str, dict[str, Any]] = {
    "default": {},
    "dev, 3 and 4 hops": {"split": "dev", "hops": [3, 4], "top_k": 10, "reward": "f1"},
    "feedback": {"split": "dev", "on_malformed": "feedback", "reward": "research", "max_searches": 2},
    "no corpus": {"split": "dev", "corpus": "none"},
}

HOSTILE = (
    "",
    "The answer is Paris.",
    "<think> a </think> <search> {q} </search> and more",
    "<think> a </think> <search> {q} </search> <result> mine </result>",
    "<search> {q} </search>",
    "<think> a </think> <answer> no box </answer>",
    "<think> a </think> <answer> \\boxed{{ \\text{{Ada}}\\,{q} }} </answer> tail",
    "</search>",
    "<think> a </think> <result> mine </result> <search> {q} </search>",
    "<think> a </think> <search>  </search>",
    "<think> a </think> <search> <answer> {q} </search>",
    "<think> a <think> b </think> <answer> \\boxed{{{q}}} </answer>",
)


def play(name: str, env: gym.Env[str, str], episodes: int) -> Iterator[str]:
    """One line of JSON for each return of `reset` and `step`: the oracle, random turns, and hostile ones by turns."""
    inner: Any = env.unwrapped
    yield json.dumps([name, inner.metadata["stop"], inner.metadata["corpus"], repr(env.observation_space)])
    for seed in range(episodes):
        text, info = env.reset(seed=seed)
        env.action_space.seed(seed)
        yield line(name, seed, text, info)
        question = inner.find_question(info["question_id"])
        ended = False
        while not ended:
            number = info["turn"]
            match seed % 3:
                case 0:
                    hops = question.decomposition
                    if number < len(hops) and number < 4:
                        turn = inner.protocol.search_turn(f"Step {number}.", hops[number].question)
                    else:
                        turn = inner.protocol.answer_turn("Done.", question.answers[0])
                case 1:
                    turn = env.action_space.sample()
                case _:
                    turn = HOSTILE[(seed // 3 + 5 * number) % len(HOSTILE)].format(q=question.text)
            text, reward, terminated, truncated, info = env.step(turn)
            ended = terminated or truncated
            yield line(name, seed, text, info, turn, reward, terminated, truncated)
        yield json.dumps([name, seed, env.render()])
    env.close()


def line(name: str, seed: int, text: str, info: dict[str, Any], *rest: Any) -> str:
    # The digests were recorded when `passages` held ids, and keys were None until the episode had ended.
    shown = {key: info.get(key) for key in INFO} | {"passages": info["passage_ids"]}
    return json.dumps([name, seed, text, shown, *rest], sort_keys=True)


def cases(folder: Path | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """`(name, id, keyword arguments)`; those of MuSiQue are there where `folder` holds the published samples."""
    for name, kwargs in SYNTHETIC.items():
        yield f"synthetic: {name}", "ReSearch-Synthetic-v0", kwargs
    if folder:
        for name, kwargs in MUSIQUE.items():
            yield f"musique: {name}", "ReSearch-MuSiQue-v0", kwargs


def record(env_id: str, name: str, kwargs: dict[str, Any], episodes: int = 48) -> tuple[list[str], str]:
    """The lines of a case and their digest."""
    env = gym.make(f"research_env:{env_id}", disable_env_checker=True, render_mode="ansi", **kwargs)
    lines = list(play(name, env, episodes))
    return lines, hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main(folder: str, out: str | None = None) -> None:
    """Play every case and print the digests as JSON; `data add musique` must have been run."""
    digests, everything = {}, []
    for name, env_id, kwargs in cases(Path(folder)):
        lines, digest = record(env_id, name, kwargs)
        digests[name] = [48, digest]
        everything += lines
    if out:
        Path(out).write_text("\n".join(everything) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
