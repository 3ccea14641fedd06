"""Keyword arguments of `gym.make`: JSON, checked before any work, and named when they are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env.errors import ConfigurationError, DataMissing, ResearchError

MUSIQUE, SYNTHETIC = "ReSearch-MuSiQue-v0", "ReSearch-Synthetic-v0"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topk": 3}, ["topk=3", "did you mean 'top_k'"]),
        ({"max_search": 3}, ["max_search=3", "did you mean 'max_searches'"]),
        ({"world_sed": 3}, ["world_sed=3", "did you mean 'world_seed'"]),
        ({"zzzzzz": 3}, ["zzzzzz=3", "known:", "top_k", "num_entities"]),
        ({"top_k": "many"}, ["top_k='many': give a whole number"]),
        ({"top_k": 2.5}, ["top_k=2.5: give a whole number"]),
        ({"top_k": 0}, ["top_k=0: give 1 or more"]),
        ({"top_k": 101}, ["top_k=101: give 100 or less"]),
        ({"max_searches": -1}, ["max_searches=-1: give 0 or more"]),
        ({"max_turns": 0}, ["max_turns=0: give 1 or more"]),
        ({"split": "validation"}, ["split='validation'", "'train', 'dev', 'test'"]),
        ({"split": 3}, ["split=3: give a text"]),
        ({"split": None}, ["split=None: give a text"]),
        ({"corpus": 3}, ["corpus=3: give a text"]),
        ({"retrieval": "fast"}, ["retrieval='fast': give an object"]),
        ({"retrieval": {"deadline": "soon"}}, ["option deadline='soon': give a number"]),
        ({"tools": "search"}, ["tools='search': give a list"]),
        ({"hops": "2"}, ["hops='2'", "2 or [2, 3]"]),
        ({"hops": True}, ["hops=True", "2 or [2, 3]"]),
        ({"hops": 7}, ["hops=[7]", "synthetic train"]),
        ({"hops": ["two"]}, ["hops[0]='two': give a whole number"]),
        ({"hops": [7]}, ["hops=[7]", "synthetic train"]),
        ({"hops": []}, ["hops=[]"]),
        ({"reward": "exact"}, ["reward='exact'", "known: em, f1, research"]),
        ({"reward": "reserch"}, ["did you mean 'research'"]),
        ({"protocol": "reasearch"}, ["protocol='reasearch'", "did you mean 'research'"]),
        ({"dataset": "syntetic"}, ["dataset='syntetic'", "did you mean 'synthetic'"]),
        ({"on_malformed": "ignore"}, ["on_malformed='ignore'", "'end' or 'feedback'"]),
        ({"corpus": "wiki"}, ["corpus 'wiki'", "'pooled', 'none'", "elasticsearch://"]),
        ({"corpus": "musique"}, ["corpus='musique' is the name of a data set", "'pooled'", "index build"]),
        ({"corpus": "synthetic"}, ["corpus='synthetic' is the name of a data set", "'pooled'", "index build"]),
        ({"instructions": "Answer."}, ["{question}", "exactly once"]),
        ({"instructions": "{question} {question}"}, ["{question}", "exactly once"]),
        ({"instructions": "In \boxed{}: {question}"}, ["instructions=", "'\\x08' before 'oxed{}: {que'", r"\\boxed"]),
        ({"instructions": "{question} \frac"}, ["'\\x0c' before 'rac'", r"\\boxed"]),
        ({"instructions": "{question} \right"}, ["'\\r' before 'ight'"]),
        ({"instructions": "{question} \x1b[2J \x00"}, ["'\\x1b' before"]),
        ({"instructions": "{question} \ud800"}, ["'\\ud800' before"]),
        ({"instructions": "Use \text{}: {question}"}, ["'\\t' before 'ext{}: {ques'", r"\\boxed"]),
        ({"num_entities": 7}, ["num_entities=7", "100 to 1,000,000"]),
        ({"num_entities": "7"}, ["num_entities='7'", "whole number"]),
        ({"world_seed": {1, 2}}, ["world_seed", "JSON"]),
        ({"retrieval": {"deadline": {1, 2}}}, ["retrieval", "JSON"]),
    ],
)
def test_what_cannot_work_is_named(settings, words):
    with pytest.raises(ConfigurationError) as error:
        gym.make(SYNTHETIC, **settings)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    for word in ("tuple", "dictionary", "Input should", "integer", "Extra inputs"):  # pydantic's words
        assert word not in str(error.value)


def test_one_hop_count_is_a_list_of_one() -> None:
    env = gym.make(SYNTHETIC, hops=2, num_entities=100)
    assert env.unwrapped.settings.hops == (2,)
    assert {env.reset(seed=seed)[1]["hops"] for seed in range(20)} == {2}


def test_paths_are_taken_as_their_text(tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    file.write_text('{"id": "p1", "title": "Amber Kesh", "text": "A novel."}\n')
    env = gym.make(SYNTHETIC, corpus=file, num_entities=100)
    assert env.unwrapped.settings.corpus == str(file)
    with pytest.raises(ResearchError, match=r"recording=.*nowhere: there is no such file"):
        gym.make(SYNTHETIC, retrieval={"mode": "replay", "recording": tmp_path / "nowhere"}, num_entities=100)


def test_world_settings_belong_to_the_synthetic_set_only(musique_home):
    with pytest.raises(ConfigurationError, match="world_seed=3 is not a keyword argument"):
        gym.make(MUSIQUE, world_seed=3)


def test_missing_data_says_how_to_bring_it():
    with pytest.raises(DataMissing, match="research_env data download musique"):
        gym.make(MUSIQUE)


def test_keyword_arguments_that_went_through_json(musique_home):
    settings = json.loads('{"split": "dev", "hops": [2, 3], "top_k": 3, "max_searches": 1, "reward": "f1"}')
    env = gym.make(MUSIQUE, **settings)
    assert {env.reset(seed=seed)[1]["hops"] for seed in range(20)} == {2, 3}
    assert env.unwrapped.settings.hops == (2, 3)


def test_another_world_has_other_questions():
    prompts = {gym.make(SYNTHETIC, world_seed=seed, num_entities=200).reset(seed=0)[0] for seed in (0, 1, 2)}
    assert len(prompts) == 3


def test_hops_of_the_synthetic_set():
    env = gym.make(SYNTHETIC, hops=[2, 4], num_entities=200)
    seen = [env.reset(seed=seed)[1]["hops"] for seed in range(100)]
    assert set(seen) == {2, 4}
    assert 40 <= seen.count(2) <= 60


def test_instructions_of_your_own(musique_home):
    env = gym.make(MUSIQUE, instructions="Use \\boxed{} please: {question} Go.")
    prompt, _ = env.reset(options={"question_id": "2hop__0"})
    assert prompt == "Use \\boxed{} please: Who founded the founder of Varn0a? Go."


@pytest.mark.parametrize("fine", ["\t{question}\n", "{question}\r\n", "Antworte kurz – «{question}» 日本\u200d"])
def test_tabs_and_line_ends_are_fine_in_instructions(fine):
    assert gym.make(SYNTHETIC, instructions=fine, num_entities=100).reset(seed=0)[0].endswith(fine[-1:])


def test_stop_strings_are_in_the_metadata():
    env = gym.make(SYNTHETIC)
    assert env.unwrapped.metadata["stop"] == ["</search>", "</answer>"]
    assert "ansi" in env.unwrapped.metadata["render_modes"]


def test_a_protocol_and_a_data_set_of_your_own_by_module_and_name():
    env = gym.make(
        SYNTHETIC, protocol="research_env.protocols.research:ResearchProtocol", dataset="research_env.synthetic:load"
    )
    assert env.reset(seed=0)[1]["question_id"].startswith("synthetic-0-train-")
    with pytest.raises(ResearchError, match=r"protocol='json:Nothing' cannot be loaded"):
        gym.make(SYNTHETIC, protocol="json:Nothing")
    with pytest.raises(ResearchError, match=r"dataset='no_such_module:load' cannot be loaded"):
        gym.make(SYNTHETIC, dataset="no_such_module:load")


def test_no_hop_counts_at_all() -> None:
    with pytest.raises(ConfigurationError, match=re.escape("hops=[]: give at least one hop count")):
        gym.make("ReSearch-Synthetic-v0", hops=[])
