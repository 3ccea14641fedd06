"""The section `objective` is what the chosen algorithm makes of it, whoever wrote the algorithm."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from learners.algorithms.grpo import GRPOSettings
from learners.config import Config, load_config


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An algorithm in a package of somebody else's, with a knob of its own."""
    (tmp_path / "an_outsider.py").write_text(
        "from learners.algorithms.base import Algorithm, Objective\n"
        "class Settings(Objective):\n"
        "    beta: float = 0.5\n"
        '    """How much of it."""\n'
        "class Mine(Algorithm):\n"
        "    Settings = Settings\n"
        "    def credit(self, groups, scores): ...\n"
        "    def loss(self, tokens): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "an_outsider:Mine"


def test_an_algorithm_brings_its_own_knobs(outsider: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(["--algorithm", outsider, "--objective.beta", "0.25", "--objective.final-kl", "null"])
    # The preset's `kl` is a knob of this algorithm too; its `flat_episodes` is GRPO's alone.
    assert config.objective.model_dump() == {"kl": 0.2, "final_kl": None, "beta": 0.25}
    assert config.model_dump(mode="json")["objective"]["beta"] == 0.25
    assert pickle.loads(pickle.dumps(config)) == config, "it has to travel to other processes"
    with pytest.raises(SystemExit):
        load_config(["--algorithm", outsider, "--help"])
    assert "How much of it. (default: 0.5)" in capsys.readouterr().out


def test_any_source_may_name_the_algorithm(outsider: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'algorithm = "{outsider}"\n[objective]\nbeta = 0.1\n')
    assert load_config(["--config", str(path)]).objective.beta == 0.1
    assert load_config(["--preset", str(path)]).objective.beta == 0.1
    assert load_config(["--config", str(path), "--objective.beta", "0.2"]).objective.beta == 0.2
    assert isinstance(load_config(["--config", str(path), "--algorithm", "grpo"]).objective, GRPOSettings)
    path.write_text("[objective]\nbeta = 0.1\nclip = 0.2\n")
    with pytest.raises(ValueError, match=r"objective\.clip"):  # written by hand for this run, so a mistake
        load_config(["--config", str(path), "--algorithm", outsider])


def test_the_default_algorithm_is_the_commands(outsider: str) -> None:
    assert load_config([], algorithm=outsider).algorithm == outsider
    assert load_config(["--algorithm", "grpo"], algorithm=outsider).algorithm == "grpo"


def test_a_section_may_be_given_as_a_model() -> None:
    """A `Config` can be made in Python, too."""
    assert Config().objective == GRPOSettings()
    assert Config(objective=GRPOSettings(clip=0.5)).objective == GRPOSettings(clip=0.5)
    assert Config(objective={"clip": 0.5}).objective == GRPOSettings(clip=0.5)  # type: ignore[arg-type]
    assert Config.model_validate(Config(seed=3).model_dump(mode="json")) == Config(seed=3)
