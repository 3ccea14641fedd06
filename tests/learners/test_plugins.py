"""A plug-in that does not fit gives one line that names what is missing. The check makes no instance of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners import names, plugins
from learners.algorithms import ALGORITHMS
from learners.algorithms.base import Algorithm
from learners.algorithms.grpo import GRPO
from learners.engines.transformers import TransformersEngine
from learners.engines.vllm import VllmEngine
from learners.renderers import RENDERERS

MODULE = """
from pydantic import BaseModel
from learners.algorithms.base import Algorithm, Term
from learners.engines import Engine as EngineProtocol
from learners.environment import EnvironmentFault
from learners.renderers import Renderer as RendererProtocol

class Bare(Algorithm):
    pass

class Good(Algorithm):
    def credit(self, groups, scores): ...
    def loss(self, tokens): ...

class NoModel(Good):
    Settings = dict

class Greedy(Good):
    needs = frozenset({"old", "rewards"})

class Stringy(Good):
    needs = "old"

class NoSettings(Good):
    def __init__(self): ...

class BadTerm(Good):
    def terms(self):
        return [Term("entropy", None, 0.1, needs=frozenset({"entropies"}))]

class NoList(Good):
    def terms(self): ...

class Twice(Good):
    def terms(self):
        return [Term("x", None, 0.1), Term("x", None, 0.1)]

class Backwards(Good):
    rounds = -1

class Blocking:
    def __init__(self, config, model, seed=0): ...
    def generate(self, ids, sampling): ...
    async def update_weights(self, weights, version): ...
    def close(self): ...

class Inherits(EngineProtocol):
    def __init__(self, config, model, seed=0): ...
    async def generate(self, ids, sampling): ...

class InheritsRenderer(RendererProtocol):
    def __init__(self, tokenizer): ...
    def begin(self, prompt, info): ...

class Broken(Good):
    def terms(self):
        return [self.settings.no_such_knob]

class Alone:
    '''Everything an algorithm has, without the base.'''
    class Settings(BaseModel): ...
    needs, rounds = frozenset({"probes"}), 2
    def __init__(self, settings): ...
    def keep(self, group): ...
    def probes(self, groups): ...
    def credit(self, groups, scores): ...
    def share(self, groups): ...
    def loss(self, tokens): ...
    def terms(self): return []

class Engine:
    def __init__(self, config, model, seed=0):
        raise RuntimeError("it was made")
    async def generate(self, ids, sampling): ...
    async def update_weights(self, weights, version): ...
    async def close(self): ...

class NoSeed(Engine):
    def __init__(self, config, model): ...

class NoClose:
    def __init__(self, config, model, seed=0): ...
    async def generate(self, ids, sampling): ...
    async def update_weights(self, weights, version): ...

class Renderer:
    def __init__(self, tokenizer, template): ...
    def begin(self, prompt, info): ...
    def observe(self, text, info): ...
    def decode(self, ids): ...

def measure(trajectories): ...
def measure_two(trajectories, groups): ...
def engine(config, model, seed=0): ...
number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged.py").write_text(MODULE)
    (tmp_path / "broken_plug.py").write_text("raise RuntimeError('line one\\nline two')\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_our_own_fit() -> None:
    assert [plugins.algorithm(name) for name in ALGORITHMS] == [GRPO]
    assert issubclass(GRPO, Algorithm)
    assert plugins.engine("vllm") is VllmEngine
    assert plugins.engine("transformers") is TransformersEngine
    for name in RENDERERS:
        plugins.renderer(name)
    plugins.metrics("learners.metrics:by_hops")


def test_an_outsiders_fit() -> None:
    for name in ("Good", "Alone"):
        algorithm = plugins.algorithm(f"plugged:{name}")
        plugins.check_terms(f"plugged:{name}", algorithm.Settings())
    assert plugins.engine("plugged:Engine").__name__ == "Engine"
    assert plugins.metrics("plugged:measure").__name__ == "measure"


@pytest.mark.parametrize(
    ("kind", "name", "named"),
    [
        ("algorithm", "grop", ["--algorithm grop", "known: grpo", "did you mean 'grpo'?"]),
        ("algorithm", "plugged:Bare", ["plugged:Bare lacks: credit, loss"]),
        ("algorithm", "plugged:number", ["not a class but int"]),
        ("algorithm", "plugged:Engine", ["lacks: Settings, needs"]),
        ("algorithm", "plugged:NoModel", ["Settings", "pydantic"]),
        ("algorithm", "plugged:Greedy", ["rewards", "old, probes, reference"]),
        ("algorithm", "plugged:Backwards", ["rounds = -1"]),
        ("engine", "plugged:Blocking", ["write `async def` for generate, close"]),
        ("engine", "plugged:Inherits", ["lacks: update_weights, close"]),
        ("renderer", "plugged:InheritsRenderer", ["lacks: observe, decode"]),
        ("algorithm", "plugged:Stringy", ["needs = 'old'", "a set of names"]),
        ("algorithm", "plugged:NoSettings", ["cannot be called with (settings)"]),
        ("algorithm", "plugged:Absent", ["plugged:Absent cannot be loaded", "Absent"]),
        ("algorithm", "no_such_module:X", ["no_such_module:X cannot be loaded", "ModuleNotFoundError"]),
        ("algorithm", "broken_plug:X", ["cannot be loaded", "RuntimeError: line one line two"]),
        ("algorithm", "plugged:", ["cannot be loaded"]),
        ("algorithm", ":", ["cannot be loaded"]),
        ("engine", "vlm", ["--engine.kind vlm", "vllm, transformers, or module:Name", "did you mean 'vllm'?"]),
        ("engine", "plugged:NoSeed", ["cannot be called with (config, model, seed=)", "seed"]),
        ("engine", "plugged:NoClose", ["lacks: close"]),
        ("engine", "plugged:engine", ["not a class but function"]),
        ("renderer", "plane", ["--renderer plane", "did you mean 'plain'?"]),
        ("renderer", "plugged:Renderer", ["cannot be called with (tokenizer)", "template"]),
        ("renderer", "plugged:Good", ["lacks: begin, observe, decode"]),
        ("metrics", "by_hops", ["metrics by_hops", "module:Name"]),
        ("metrics", "plugged:measure_two", ["cannot be called with (trajectories)", "groups"]),
        ("metrics", "plugged:number", ["int, which cannot be called"]),
    ],
)
def test_a_wrong_one_is_one_line(kind: str, name: str, named: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        getattr(plugins, kind)(name)
    message = str(raised.value)
    assert "\n" not in message
    assert [each for each in named if each not in message] == [], message


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("BadTerm", "term 'entropy', needs entropies"),
        ("Broken", "no_such_knob"),
        ("NoList", "returned None; give a list"),
        ("Twice", "two terms have the same name"),
    ],
)
def test_the_terms_of_an_algorithm_are_looked_at(name: str, named: str) -> None:
    settings = plugins.algorithm(f"plugged:{name}").Settings()
    with pytest.raises(ValueError, match=named) as raised:
        plugins.check_terms(f"plugged:{name}", settings)
    assert "\n" not in str(raised.value)


def test_a_builtin_without_a_signature_is_left_to_its_call() -> None:
    assert names.check({}, "what", "builtins:dict", takes=("a",)) is dict


def test_did_you_mean() -> None:
    assert names.did_you_mean("vlm", ["vllm", "transformers"]) == "; did you mean 'vllm'?"
    assert names.did_you_mean("zzz", ["vllm"]) == ""


def test_what_a_metrics_function_gives_is_made_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import plugged

    def given(value: Any) -> Any:
        monkeypatch.setattr(plugged, "measure", lambda trajectories: value)
        return plugins.make_metrics("plugged:measure")([])

    assert given({"em": {1: np.float32(0.5), "bio/chem": 1}, 2: {"all": float("nan")}}) == {
        "em": {"1": 0.5, "bio-chem": 1}, "2": {},
    }  # fmt: skip
    # A training step measures numbers of these names, too.
    assert given({"tokens": {"all": 3}, "a/b": {"all": 1}}) == {"own_tokens": {"all": 3}, "a-b": {"all": 1}}
    with pytest.raises(plugins.PluginFault, match="give metric -> group -> value"):
        given({"em": {"all": "much"}})
