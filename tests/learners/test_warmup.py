"""The warm start: gymnasium's own random agent, imitated once and cached."""

from __future__ import annotations

import string
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners.config import Config, load_config
from learners.environment import EnvironmentFault, WrapperConfig, make
from learners.tiny import warmup
from learners.tiny.warmup import random_episodes, tiny_policy
from research_env import files

ENV = "Parrot-v0"
SMALL = (
    "--tiny.hidden 64 --tiny.layers 2 --tiny.heads 2 --tiny.feed-forward 64 --tiny.vocabulary 300 --warmup.steps 3 "
    "--warmup.episodes-per-step 4 --trainer.threads 1 --engine.max-length 256"
)


class Words(gym.spaces.Text):
    """Samples one of three turns, or nothing where `mute`."""

    def __init__(self, mute: bool) -> None:
        super().__init__(9_999, min_length=0, charset=string.printable)
        self.mute = mute

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        turns = ["<say> one </say>", "<say> two </say>", "<stop> done </stop>"]
        return "" if self.mute else turns[int(self.np_random.integers(3))]


class Parrot(gym.Env[str, str]):
    """Repeats each turn until it is told to stop."""

    metadata: dict[str, Any] = {"render_modes": [], "stop": ["</say>"]}

    def __init__(self, mute: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = Words(mute)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return f"talk {seed}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        over = "stop" in action
        return "" if over else f" heard: {action}", 0.0, over, False, {}


class Shouting(gym.ObservationWrapper[str, str, str]):
    """All in capitals."""

    def observation(self, observation: str) -> str:
        return observation.upper()


@pytest.fixture(autouse=True)
def parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gym.register(ENV, entry_point=Parrot)
    monkeypatch.setattr(warmup, "TOKENIZER_EPISODES", 30)
    yield
    del gym.registry[ENV]


def configured(*more: str) -> Config:
    return load_config([*SMALL.split(), "--env", ENV, *more])


def test_episodes_alternate_from_the_first_seed_on() -> None:
    env = make(ENV, {})
    env.action_space.seed(0)
    episodes = list(islice(random_episodes(env, seed=2), 12))
    assert [episode[0] for episode in episodes] == [("prompt", f"talk {2_000_006 + n}") for n in range(12)]
    for episode in episodes:
        assert [who for who, _ in episode[1:]] == ["policy", "environment"] * (len(episode) // 2)
        assert episode[-2:] == [("policy", "<stop> done </stop>"), ("environment", "")]
        for (_, said), (_, heard) in zip(episode[1:-2:2], episode[2:-2:2], strict=True):
            assert heard == f" heard: {said}"
    assert len({len(episode) for episode in episodes}) > 1


def test_the_random_agent_is_seeded() -> None:
    def play(seed: int) -> list[Any]:
        env = make(ENV, {})
        env.action_space.seed(seed)
        return list(islice(random_episodes(env, seed=0), 10))

    assert play(1) == play(1) != play(2)


def test_an_environment_without_examples_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"action_space\.sample\(\).*--model") as raised:
        next(random_episodes(make(ENV, {"mute": True}), seed=0))
    assert "\n" not in str(raised.value)
    with pytest.raises(EnvironmentFault):
        tiny_policy(configured("--env-kwargs", '{"mute": true}'), lambda text: None)


@pytest.mark.parametrize("longest", [3, 2_000])
def test_an_episode_without_end_is_one_line(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample may be as long as the space allows, and a random agent may never end an episode."""
    env = make(ENV, {})
    monkeypatch.setattr(type(env.unwrapped), "step", lambda *_: ("more " * 5, 0.0, False, False, {}))
    with pytest.raises(EnvironmentFault, match=rf"after \d+ turns, more than {longest:,}: give the space"):
        next(random_episodes(env, 0, longest))


@pytest.mark.parametrize("method", ["seed", "sample"])
def test_an_action_space_that_raises_is_one_line(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no\nexamples here")

    monkeypatch.setattr(Words, method, fail)
    with pytest.raises(EnvironmentFault, match="NotImplementedError: no examples here"):
        tiny_policy(configured(), lambda text: None)


def test_our_own_environment_gives_examples() -> None:
    env = make("research_env:ReSearch-Synthetic-v0", {"num_entities": 200, "hops": [1, 2]})
    env.action_space.seed(0)
    turns = [text for episode in islice(random_episodes(env, 0), 20) for who, text in episode if who == "policy"]
    assert any("<search>" in turn for turn in turns)
    assert any("<answer>" in turn for turn in turns)


def test_a_policy_is_made_once(research_home: Path) -> None:
    said: list[str] = []
    folder = tiny_policy(configured(), said.append)
    assert folder.is_relative_to(research_home)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "something unfinished was left behind"
    assert any("step 3/3" in line for line in said)
    written = (folder / "model.safetensors").stat().st_mtime_ns

    said.clear()
    assert tiny_policy(configured(), said.append) == folder
    assert said == [f"warm start: cached in {folder}"]
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_another_configuration_is_another_policy() -> None:
    def folder(*more: str) -> Path:
        return tiny_policy(configured(*more), lambda text: None)

    folders = {folder(), folder("--seed", "1"), folder("--warmup.steps", "2"), folder("--tiny.hidden", "128")}
    assert len(folders) == 4


def test_settings_of_the_training_do_not_matter() -> None:
    """Runs that differ in what comes after share the warm start."""

    def folder(*more: str) -> Path:
        return tiny_policy(configured(*more), lambda text: None)

    assert folder() == folder("--steps", "2", "--kl", "0", "--eval-questions", "3", "--engine.max-sequences", "5")


def test_policies_that_are_cached_are_found(research_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the default preset's policy; another one would be made anew, which takes a minute."""
    monkeypatch.delattr("learners.tiny.warmup._warm_up")
    folder = research_home / "policies" / "tiny-52e7e75cc64fc4a9"
    folder.mkdir(parents=True)
    assert tiny_policy(load_config([]), lambda text: None) == folder


def test_a_wrapper_makes_another_policy() -> None:
    """It may change what the environment says."""
    config = configured()
    research = config.research.model_copy(
        update={"id": ENV, "kwargs": {}, "stages": [], "wrappers": [WrapperConfig(name=f"{__name__}:Shouting")]}
    )
    wrapped = tiny_policy(config.model_copy(update={"env": "research", "research": research}), lambda text: None)
    assert wrapped != tiny_policy(config, lambda text: None)


def test_the_policy_is_an_ordinary_model_whose_tags_are_one_token() -> None:
    folder = tiny_policy(configured(), lambda text: None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for tag in ("<say>", "</say>", "<stop>", "</stop>"):
        assert len(tokenizer.encode(tag)) == 1
    assert AutoModelForCausalLM.from_pretrained(folder).config.max_position_embeddings == 256


def test_the_warm_start_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 40 steps the loss, nats a token, is well under where it began."""
    losses: list[float] = []
    backward = warmup.token_logprobs

    def spy(model: Any, batch: Any) -> Any:
        values = backward(model, batch)
        losses.append(-values.mean().item())
        return values

    monkeypatch.setattr(warmup, "token_logprobs", spy)
    tiny_policy(configured("--warmup.steps", "40"), lambda text: None)
    assert losses[-1] < losses[0] / 2


def test_a_home_below_the_users_folder_is_the_one_that_the_environment_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESEARCH_HOME", "~/kept")
    monkeypatch.setattr(warmup, "_warm_up", lambda config, folder, say: folder.mkdir(parents=True))
    folder = tiny_policy(configured(), lambda text: None)
    assert folder.is_relative_to(tmp_path / "kept")
    assert folder.is_relative_to(files.home())
