"""Settings of the old form mean what they meant, wherever they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from learners.config import Config, load_config, resolve
from learners.old_form import COST_WRAPPER, new_form, split_arguments, with_cost

OLD = "clip = 0.3\nkl = 0.1\nfinal_kl = 0.02\nflat_episodes = 3\nchat = true\nsearch_cost = 0.05\n"


def check(config: Config) -> None:
    """The configuration says what `OLD` says."""
    assert config.objective.model_dump() == {"clip": 0.3, "kl": 0.1, "final_kl": 0.02, "flat_episodes": 3}
    assert config.renderer == "templated"
    assert [(each.name, each.kwargs) for each in config.environment().wrappers] == [(COST_WRAPPER, {"cost": 0.05})]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(OLD)
    check(load_config(["--config", str(path)]))
    check(load_config(["--preset", str(path)]))


def test_flags() -> None:
    line = "--clip 0.3 --kl=0.1 --final-kl 0.02 --flat-episodes=3 --chat --search-cost 0.05"
    check(load_config(line.split()))
    off = load_config(["--preset", "qwen2.5-7b-instruct", "--no-chat", "--kl", "0", "--final-kl", "null"])
    assert (off.renderer, off.objective.kl, off.objective.final_kl) == ("plain", 0, None)


def test_a_dictionary() -> None:
    check(resolve({"clip": 0.3, "kl": 0.1, "final_kl": 0.02, "flat_episodes": 3, "chat": True, "search_cost": 0.05}))


def test_saved_settings(tmp_path: Path) -> None:
    """A checkpoint of an older version: it has every setting, those that are off too."""
    old = {"preset": "tiny-cpu", "algorithm": "grpo", "seed": 5, "env": "research", "env_kwargs": {"hops": [1]},
           "research": {"id": "research_env:ReSearch-Synthetic-v0", "kwargs": {"split": "train"}, "stages": []},
           "clip": 0.3, "kl": 0.1, "final_kl": 0.02, "flat_episodes": 3, "chat": True, "search_cost": 0.05}  # fmt: skip

    def resumed(saved: dict[str, Any], *more: str) -> Config:
        folder = tmp_path / "one" / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps({"step": 1, "config": saved}))
        return load_config(["--runs", str(tmp_path), "--name", "one", "--resume", *more])

    check(resumed(old))
    assert resumed(old).environment().kwargs == {"split": "train", "hops": [1]}
    told = resumed(old, "--search-cost", "0", "--kl", "0.2", "--no-chat")
    assert (told.environment().wrappers, told.objective.kl, told.renderer) == ([], 0.2, "plain")
    off = resumed(old | {"chat": False, "search_cost": 0.0, "final_kl": None, "flat_episodes": None})
    assert (off.renderer, off.environment().wrappers) == ("plain", [])
    assert (off.objective.final_kl, off.objective.flat_episodes) == (None, None)


def test_the_present_form_wins() -> None:
    assert new_form({"kl": 1, "clip": 2, "objective": {"kl": 3}})["objective"] == {"kl": 3, "clip": 2}
    assert new_form({"chat": True, "renderer": "a:B"}) == {"renderer": "a:B"}
    cost = {"name": COST_WRAPPER, "kwargs": {"cost": 9}}
    assert with_cost({"search_cost": 1, "research": {"wrappers": [cost, "a:B"], "id": "x"}})["research"] == {
        "wrappers": ["a:B", {"name": COST_WRAPPER, "kwargs": {"cost": 1.0}}],
        "id": "x",
    }
    config = load_config(["--kl", "1", "--objective.kl", "2"])
    assert config.objective.kl == 2


def test_what_is_not_old_stays_as_it_is() -> None:
    settings = {"prompts": 3, "objective": {"kl": 1}, "research": {"id": "x"}, "renderer": "plain"}
    assert new_form(settings) == settings
    line = ["--prompts", "3", "--objective.kl=1", "--env-kwargs", '{"kl": 1}', "--dry-run"]
    assert split_arguments(line, "prog") == ({}, line)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"clip": -1}, "objective.clip = -1"),
        ({"kl": "much"}, "objective.kl = 'much'"),
        ({"chat": "yes"}, "chat = 'yes'"),
        ({"search_cost": -0.5}, "search_cost = -0.5"),
        ({"search_cost": "nan"}, "search_cost = 'nan'"),
        ({"objective": 3, "kl": 0.1}, "objective = 3"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError) as raised:
        resolve(given)
    assert str(raised.value).startswith(named)
    assert "\n" not in str(raised.value)


def test_a_cost_stands_beside_other_wrappers_and_goes_around_any_environment(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text('search_cost = 0.1\n[research]\nwrappers = ["a:B"]\n')

    def wrappers(*line: str) -> list[str]:
        return [each.name for each in load_config(["--config", str(path), *line]).environment().wrappers]

    assert wrappers() == wrappers("--search-cost", "0.2") == wrappers("--env", "Other-v0") == ["a:B", COST_WRAPPER]
    assert wrappers("--search-cost", "0") == ["a:B"]
    assert load_config(["--search-cost", "0.1", "--env", "Other-v0"]).environment().wrappers[0].kwargs == {"cost": 0.1}


@pytest.mark.parametrize("research", ["x", {"wrappers": "x"}])
def test_a_section_that_is_none_is_named_beside_a_cost(research: Any) -> None:
    with pytest.raises(ValueError, match=r"^research"):
        resolve({"search_cost": 0.1, "research": research})


def test_a_flag_without_its_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"^--kl: a value is missing"):
        load_config(["--kl"])
