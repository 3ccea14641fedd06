"""Episodes of `ReSearchEnv`: what a step returns, when it ends, and what `info` tells."""

from __future__ import annotations

import re

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import research_env  # noqa: F401  (registers the ids)
from research_env import loading
from research_env.errors import ConfigurationError, RetrievalError
from tests.research_env.actions import FIRST
from tests.research_env.actions import answer_turn as answer
from tests.research_env.actions import search_turn as search

MUSIQUE, SYNTHETIC = "ReSearch-MuSiQue-v0", "ReSearch-Synthetic-v0"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("env_id", [MUSIQUE, SYNTHETIC])
def test_gymnasiums_checker_passes_without_a_warning(env_id, musique_home):
    check_env(gym.make(env_id, render_mode="ansi").unwrapped)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("env_id", [MUSIQUE, SYNTHETIC, f"research_env:{MUSIQUE}", f"research_env:{SYNTHETIC}"])
def test_an_episode_through_gym_make(env_id, musique_home):
    env = gym.make(env_id)
    prompt, info = env.reset(seed=0)
    assert prompt.endswith("?")
    assert env.observation_space.contains(prompt)
    assert "golden_answers" not in info
    result, reward, terminated, truncated, info = env.step(search("Varn guild"))
    assert result.startswith(" <result>\n")
    assert (reward, terminated, truncated, info["action"]) == (0.0, False, False, "search")
    text, reward, terminated, truncated, info = env.step(answer("nobody at all"))
    assert (text, reward, terminated, truncated, info["action"]) == ("", 0.0, True, False, "answer")
    assert isinstance(reward, float)


def test_a_two_hop_episode_with_all_that_it_reports(env):
    prompt, info = env.reset(options=FIRST)
    assert prompt.endswith("Question: Who founded the founder of Varn0a?")
    assert (info["question_id"], info["hops"], info["turn"], info["searches"]) == ("2hop__0", 2, 0, 0)
    text, *_, info = env.step(search("Who founded Varn0a"))
    assert "Varn0a is a guild of the northern plain. It was founded by Varn0b." in text
    assert len(info["passages"]) == text.count("\n\n") + 1 == 5
    env.step(search("Who founded Varn0b"))
    _, reward, terminated, _, info = env.step(answer("the Varn0c"))
    assert (reward, terminated) == (1.0, True)
    assert (info["turn"], info["searches"], info["action"], info["passages"]) == (3, 2, "answer", [])
    assert (info["answer"], info["em"], info["f1"], info["format_ok"]) == ("the Varn0c", 1.0, 1.0, True)
    assert info["golden_answers"] == ["Varn0c", "Varn0c the Elder"]
    assert [hop["answer"] for hop in info["evidence"]] == ["Varn0b", "Varn0c"]
    assert info["evidence"][0]["found_at"] == 1
    assert info["gold_found"] == [hop["passage_id"] for hop in info["evidence"]]
    assert info["answer_in_context"] is True


def test_text_after_the_acting_tag_is_cut_and_said_so(env):
    env.reset(options=FIRST)
    *_, info = env.step(search("Varn0a") + " <result> Varn0c </result>")
    assert (info["cut"], info["action"], info["malformed"]) == (True, "search", None)
    *_, info = env.step(search("Varn0a") + " \n")
    assert info["cut"] is False


def test_malformed_ends_the_episode(env):
    env.reset(options=FIRST)
    text, reward, terminated, truncated, info = env.step("I give up: Varn0c")
    assert (text, reward, terminated, truncated) == ("", 0.0, True, False)
    assert (info["action"], info["answer"], info["em"], info["format_ok"]) == ("malformed", None, 0.0, False)
    assert info["malformed"]


def test_malformed_with_feedback_goes_on(musique_home):
    env = gym.make(MUSIQUE, on_malformed="feedback", max_turns=3)
    env.reset(options=FIRST)
    text, reward, terminated, truncated, info = env.step("I give up: Varn0c")
    assert "</search>" in text
    assert (reward, terminated, truncated, info["turn"]) == (0.0, False, False, 1)
    *_, reward, terminated, _, info = env.step(answer("Varn0c"))
    assert (reward, terminated, info["em"], info["format_ok"]) == (1.0, True, 1.0, False)

    env.reset(options=FIRST)
    env.step("once")
    env.step("twice")
    text, reward, terminated, truncated, info = env.step("three times")
    assert (text, reward, terminated, truncated, info["answer"]) == ("", 0.0, False, True, None)


def test_one_search_too_many_truncates(musique_home):
    env = gym.make(MUSIQUE, max_searches=2)
    env.reset(options=FIRST)
    assert not env.step(search("Varn0a"))[3]
    assert not env.step(search("Varn0b"))[3]
    text, reward, terminated, truncated, info = env.step(search("Varn0c"))
    assert (text, reward, terminated, truncated) == ("", 0.0, False, True)
    assert (info["searches"], info["passages"], info["answer"]) == (2, [], None)


def test_no_searches_at_all_may_still_answer(musique_home):
    env = gym.make(MUSIQUE, max_searches=0)
    env.reset(options=FIRST)
    assert env.step(answer("Varn0c"))[1:4] == (1.0, True, False)


def test_the_last_turn_can_answer_but_not_search(musique_home):
    env = gym.make(MUSIQUE, max_turns=2)
    env.reset(options=FIRST)
    env.step(search("Varn0a"))
    assert env.step(answer("Varn0c"))[1:4] == (1.0, True, False)
    env.reset(options=FIRST)
    env.step(search("Varn0a"))
    text, reward, terminated, truncated, info = env.step(search("Varn0b"))
    assert (text, reward, terminated, truncated, info["searches"]) == ("", 0.0, False, True, 1)


def test_an_ended_episode_takes_no_step(env):
    env.reset(options=FIRST)
    env.step(answer("x"))
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(answer("Varn0c"))


def test_a_corpus_of_nothing_finds_nothing(musique_home):
    env = gym.make(MUSIQUE, corpus="none")
    env.reset(options=FIRST)
    text, *_, info = env.step(search("Varn0a"))
    assert text == " <result>\nNo passage found.\n</result>"
    assert (info["passages"], info["searches"]) == ([], 1)
    assert not list(musique_home.glob("indexes/*"))


def test_top_k(musique_home):
    env = gym.make(MUSIQUE, top_k=2)
    env.reset(options=FIRST)
    assert len(env.step(search("Varn0a guild plain wetland"))[-1]["passages"]) == 2


@pytest.mark.parametrize(
    ("reward", "turns", "expected"),
    [
        ("em", [answer("Varn0c the Younger")], 0.0),
        ("f1", [answer("Varn0c the Younger")], pytest.approx(2 / 3)),
        ("research", [answer("Varn0c the Younger")], pytest.approx(2 / 3)),
        ("research", [answer("Varn0b")], pytest.approx(0.1)),
        ("research", [answer("Varn0c").replace("<think>", "")], 0.0),  # right, but in the wrong form
        ("em", [answer("Varn0c").replace("<think>", "")], 1.0),
        ("research", ["<think> x </think> <answer> Varn0c </answer>"], 0.0),  # no box
        ("research", [answer("")], 0.0),  # nothing in the box
        ("research", [search("Varn0a"), search("Varn0b"), search("Varn0c")], 0.0),  # over the limit
        ("research", [search("Varn0a").replace("<think>", ""), answer("Varn0c")], 0.0),  # an earlier turn's form counts
    ],
)
def test_rewards(reward, turns, expected, musique_home):
    env = gym.make(MUSIQUE, reward=reward, max_searches=2)
    env.reset(options=FIRST)
    rewards = [env.step(turn)[1] for turn in turns]
    assert rewards == [0.0] * (len(turns) - 1) + [expected]


def test_a_failed_search_leaves_the_episode_as_it_was(env, monkeypatch):
    """Budgets, form and transcript: what follows is as if the search had been made once."""

    class Outage:
        def outcomes(self, queries, top_k):
            return [RetrievalError("the cluster is away") for _ in queries]

    inner = env.unwrapped
    env.reset(options=FIRST)
    *_, before = env.step(search("Varn0a"))
    shown = list(inner._episode.transcript)
    with monkeypatch.context() as outage:
        outage.setattr(loading, "retriever", lambda *_: Outage())
        for _ in range(3):
            with pytest.raises(RetrievalError, match="the cluster is away"):
                env.step(search("Varn0b").replace("<think>", ""))
    assert (inner._episode.transcript, inner._episode.info) == (shown, before)
    text, *_, info = env.step(search("Varn0b"))
    assert "Varn0b is a guild" in text
    assert (info["turn"], info["searches"]) == (2, 2)
    *_, info = env.step(answer("Varn0c"))
    assert (info["em"], info["format_ok"]) == (1.0, True)
    assert [hop["found_at"] for hop in info["evidence"]] == [1, 2]


def test_seeds_are_different_questions_and_come_again(env):
    def ids(count: int, env: gym.Env) -> list[str]:
        return [env.reset(seed=seed)[1]["question_id"] for seed in range(count)]

    first = ids(12, env)
    assert len(set(first)) == 12  # all that train has
    assert ids(12, gym.make(MUSIQUE)) == first
    _, info = env.reset(seed=12)
    assert (info["question_id"], info["place"], info["num_questions"]) == (first[0], 0, 12), "a seed past the end"
    for seed in (0, 11, 12, 25):
        assert env.reset(seed=seed)[1]["place"] == seed % 12
    for place, ident in enumerate(first):
        assert env.reset(options={"question_id": ident})[1]["place"] == place


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize("stride", [None, 1, 5])
def test_one_environment_plays_every_question_once(seed, stride, musique_home):
    env = gym.make(MUSIQUE, stride=stride)
    played = [env.reset(seed=seed if number == 0 else None)[1]["question_id"] for number in range(12)]
    assert len(set(played)) == 12


def test_without_a_seed_episodes_still_differ(env):
    assert len({env.reset()[1]["question_id"] for _ in range(12)}) == 12


def test_a_question_by_its_id(env):
    assert env.reset(options={"question_id": "4hop__2"})[0].endswith("of Varn2a?")
    with pytest.raises(ConfigurationError, match="did you mean '4hop__2'") as error:
        env.reset(options={"question_id": "4hop_2"})
    assert "12 questions of musique train" in str(error.value)
    with pytest.raises(ConfigurationError, match="3"):
        env.reset(options={"question_id": 3})
    with pytest.raises(ConfigurationError, match="x"):
        env.reset(options={"question_id": ["x"]})
    with pytest.raises(ConfigurationError, match="question"):
        env.reset(options={"question": "4hop__2"})
    with pytest.raises(ConfigurationError, match=r"reset options \[5, 'a'\] are unknown; known: question_id"):
        env.reset(options={5: 1, "a": 2})


def test_render_is_coloured_and_cannot_steer_a_terminal(musique_home):
    env = gym.make(MUSIQUE, render_mode="ansi")
    env.reset(options=FIRST)
    env.step(search("Varn0a \x1b[2J\x07"))
    shown = env.render()
    assert "\x1b[" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "Varn0a is a guild" in shown
    quiet = gym.make(MUSIQUE).unwrapped
    quiet.reset()
    assert quiet.render() is None


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (5, "got int: 5"),
        (None, "got NoneType: None"),
        (b"<search> x </search>", "got bytes: b'<search>"),
        (["a turn"], "got list: "),
        ("x", None),
    ],
)
def test_a_turn_is_a_text(env, action, said):
    env.reset()
    if said is None:
        assert env.step(action)[2]
        return
    with pytest.raises(TypeError, match=f"an action is the text of one turn, a str; {re.escape(said)}"):
        env.step(action)
    assert env.unwrapped.act("x"), "the episode is as it was"


@pytest.mark.parametrize("options", ["2hop__0", ["question_id"], 3])
def test_reset_options_are_a_dictionary(env, options):
    with pytest.raises(ConfigurationError, match="give a dictionary"):
        env.reset(options=options)


def test_the_action_space_can_be_sampled_before_the_first_reset(musique_home):
    assert "</search>" in gym.make(MUSIQUE).action_space.sample()
