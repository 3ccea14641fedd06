"""What `info` tells, and when."""

from __future__ import annotations

import json

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env.info import Info
from tests.research_env.actions import FIRST
from tests.research_env.actions import answer_turn as answer
from tests.research_env.actions import search_turn as search

MUSIQUE = "ReSearch-MuSiQue-v0"
END_KEYS = {"answer", "em", "f1", "format_ok", "golden_answers", "gold_found", "evidence", "answer_in_context"}


def test_info_has_the_same_keys_at_every_step_and_more_at_the_end(env):
    _, first = env.reset(options=FIRST)
    infos = [first]
    for turn in (search("Varn0a"), search("Varn0b"), answer("Varn0b")):
        infos.append(env.step(turn)[-1])
    assert len({tuple(info) for info in infos[:-1]}) == 1
    assert set(first) == Info.__required_keys__
    assert set(infos[-1]) - set(first) == END_KEYS == Info.__optional_keys__
    assert json.loads(json.dumps(infos)) == infos
    for info in infos[:-1]:
        # The messages hold what the policy has read, and a passage may hold the answer.
        assert "Varn0c" not in str({k: value for k, value in info.items() if k not in ("messages", "passages")})


@pytest.mark.parametrize("ending", [answer("x"), "no tags", search("y"), "<answer> no box </answer>"])
def test_gold_is_there_however_the_episode_ends(ending, musique_home):
    env = gym.make(MUSIQUE, max_turns=1)
    _, first = env.reset(options=FIRST)
    *_, terminated, truncated, info = env.step(ending)
    assert terminated != truncated
    assert set(info) == set(first) | END_KEYS
    assert {key for key in END_KEYS if info[key] is not None} >= END_KEYS - {"answer"}


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("<think> x </think> <answer> Varn0c </answer>", r"no \boxed{…} in the answer"),
        (r"<think> \boxed{Varn0c} </think> <answer> as I thought </answer>", r"no \boxed{…} in the answer"),
        ("<think> x </think> <answer></answer>", r"no \boxed{…} in the answer"),
        ("<think> x </think> <answer> boxed{Varn0c} </answer>", r"no \boxed{…} in the answer"),
        ("<think> x </think> <answer> \x08oxed{Varn0c} </answer>", r"no \boxed{…} in the answer"),  # a backspace
        (r"<think> x </think> <answer> \boxed{Varn0c </answer>", r"the \boxed{ of the answer is not closed"),
        (r"<think> x </think> <answer> \boxed{} </answer>", "the answer is empty"),
        (r"<think> x </think> <answer> \boxed{ \, } </answer>", "the answer is empty"),
        (r"<think> x </think> <answer> \boxed{\text{}} </answer>", "the answer is empty"),
    ],
)
def test_an_answer_that_can_only_be_wrong_says_why(turn, reason, musique_home):
    env = gym.make(MUSIQUE)
    env.reset(options=FIRST)
    text, reward, terminated, truncated, info = env.step(turn)
    assert (text, reward, terminated, truncated) == ("", 0.0, True, False)
    assert (info["malformed"], info["action"], info["status"]) == (reason, "malformed", "malformed")
    assert (info["answer"], info["em"], info["format_ok"]) == (None, 0.0, False)

    env = gym.make(MUSIQUE, on_malformed="feedback")
    env.reset(options=FIRST)
    text, _, terminated, _, info = env.step(turn)
    assert (terminated, info["malformed"]) == (False, reason)
    assert reason in text
    *_, info = env.step(answer("Varn0c"))
    assert (info["em"], info["format_ok"], info["malformed"]) == (1.0, False, None)


def test_question_and_passages_are_there_for_others_to_use(env):
    prompt, info = env.reset(options=FIRST)
    assert info["question"] == "Who founded the founder of Varn0a?"
    assert prompt.endswith(info["question"])
    assert info["passages"] == info["passage_ids"] == []
    text, *_, info = env.step(search("Who founded Varn0a"))
    assert info["question"] == "Who founded the founder of Varn0a?"
    assert [passage["id"] for passage in info["passages"]] == info["passage_ids"]
    blocks = [f"{passage['title']}\n{passage['text']}" for passage in info["passages"]]
    assert text == " <result>\n" + "\n\n".join(blocks) + "\n</result>"


def test_how_many_questions_there_are(musique_home):
    env = gym.make(MUSIQUE)
    assert env.unwrapped.num_questions == len(env.unwrapped) == env.reset(seed=0)[1]["num_questions"] == 12
    assert len(gym.make(MUSIQUE, split="dev", hops=[2]).unwrapped) == 2
