"""Imports point down, light packages stay light, files stay short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("research_env", "agents", "learners")
HEAVY = ("torch", "ray", "vllm", "transformers", "datasets")
MAX_LINES = 350
WITH_EXTRA = {f"research_env/retrieval/remote/{name}.py": ("serve",) for name in ("connections", "guard", "server")}
"""Files that are imported only where an extra is installed."""


@dataclass(frozen=True)
class Import:
    """One imported module: `learners/grpo.py:12 imports learners.types`."""

    path: Path
    line: int
    module: str
    at_import: bool
    """True where importing the file runs it for certain: not in a function, `try`, `if` or class."""

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def parse(source: str, path: Path) -> Iterator[Import]:
    """Every import in a file whose path is relative to the root, wherever in the file it stands."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                modules = [node.module or ""]
            case ast.ImportFrom():  # from . and from .. stand for a parent of the file
                modules = [".".join([*path.parts[: -node.level], *([node.module] if node.module else [])])]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(text)), *_]):
                modules = [text.partition(":")[0]] if name in ("import_module", "__import__") else []
            case _:
                continue
        for module in modules:
            yield Import(path, node.lineno, module, at_import=node in tree.body)


def imports(package: str) -> list[Import]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ holds no Python file"
    return [found for file in files for found in parse(file.read_text("utf-8"), file.relative_to(ROOT))]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("research_env", ("agents", "learners", "benchmarks", "tests", "torch", "ray", "vllm", "transformers")),
        ("agents", ("learners", "benchmarks", "tests", "torch", "ray", "vllm")),
        ("learners", ("research_env", "agents", "benchmarks", "tests")),
        ("benchmarks", ("tests",)),
    ],
)
def test_imports_point_down(package: str, forbidden: tuple[str, ...]) -> None:
    assert [str(found) for found in imports(package) if found.top in forbidden] == []


def test_vllm_stays_behind_the_seams() -> None:
    seams = (Path("learners/engines"), Path("learners/weights"))
    breaches = [
        str(found)
        for found in imports("learners")
        if found.top == "vllm" and not any(found.path.is_relative_to(seam) for seam in seams)
    ]
    assert breaches == []


RANKS = {
    "research_env": [
        "errors types text wording progress shared_texts wrappers",
        "names files rewards evidence render info order spaces",
        "tools corpora questions synthetic",
        "protocols retrieval registration dataset_checks",
        "__init__ loading episode random_turns plugins",
        "env",
        "vector cli",
        "__main__",
    ],
    "learners": [
        "__init__ types names signals border threads contract weights trainer_config engines/config algorithms/terms "
        "tiny messages",
        "errors",
        "checkpoint",
        "algorithms engines environment renderers packing packed_model seeds metrics transcript settings",
        "flags pretrained packed_check",
        "curve",
        "report old_form plugins rollout tiny/model",
        "resumed",
        "config",
        "trainer tiny/warmup",
        "policies memory",
        "room",
        "preflight run_folder summary",
        "cluster",
        "evaluate loop",
        "run",
        "grpo",
    ],
    "agents": ["__init__", "base", "oracle random_agent"],
}
"""Rank of every file, lowest first, by its own path or that of its folder. An import goes to a lower rank, so questions
and retrieval do not know each other; or it stays in its folder, where `ORDERS` holds."""

ORDERS = {
    "research_env/cli": "__init__ play data index serve",
    "research_env/corpora": "__init__ content formats reader",
    "research_env/protocols": "__init__ base tags latex_tables latex boxed research",
    "research_env/questions": "__init__ catalogue base store hub musique",
    "research_env/retrieval": (
        "base options searchable keywords fusion gateway/__init__ gateway/border gateway/options gateway/circuit "
        "gateway/recording gateway/wanted gateway/gateway embedded/__init__ embedded/place embedded/bm25 "
        "embedded/pool embedded/encoder embedded/dense embedded/vectors embedded/folder embedded/verify "
        "elasticsearch/__init__ elasticsearch/client elasticsearch/search elasticsearch/index remote/__init__ "
        "remote/client remote/connections remote/guard remote/server addresses __init__"
    ),
    "research_env/synthetic": "names relations world __init__",
    "research_env/tools": "__init__ base search",
    "research_env/wrappers": "__init__ search_cost",
    "learners/algorithms": "__init__ terms base grpo",
    "learners/cluster": "__init__ division placement failures actors driver local",
    "learners/engines": "config __init__ transformers vllm",
    "learners/renderers": "__init__ outside plain templated",
    "learners/tiny": "__init__ config model warmup",
    "learners/weights": "__init__ host_memory",
}
"""The files of a folder in the order in which they may import each other: only what stands before."""


@cache
def rank(path: str) -> int:
    """Rank of a file, e.g. `learners/tiny/config.py`; the longest path that is listed counts."""
    package, _, inside = path.removesuffix(".py").partition("/")
    ranks = {name: at for at, names in enumerate(RANKS[package]) for name in names.split()}
    parts = inside.split("/")
    for size in range(len(parts), 0, -1):
        if (name := "/".join(parts[:size])) in ranks:
            return ranks[name]
    raise AssertionError(f"{path} has no rank: give it one in RANKS")


@cache
def files_imported() -> dict[str, set[str]]:
    """File -> files of the same package that it imports, inside functions too."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT)
            found[str(path)] = set()
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                # `from package import module` names a file, `from package.module import Name` names one of its parts.
                targets = {t for name in names if (t := _file(name) or _file(name.rpartition(".")[0]))}
                found[str(path)] |= {t for t in targets if t.partition("/")[0] == package} - {str(path)}
    return found


def _file(module: str) -> str | None:
    place = Path(*module.split(".")) if module else Path("none")
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if (ROOT / path).is_file():
            return str(path)
    return None


def place(file: str) -> int:
    """Place of a file in the order of its folder."""
    folder = _folder(file)
    order = ORDERS[folder].split()
    name = file.removeprefix(f"{folder}/").removesuffix(".py")
    assert name in order, f"{file} has no place: give it one in ORDERS"
    return order.index(name)


def test_every_import_goes_to_a_lower_rank_or_stands_before_in_its_folder() -> None:
    def is_breach(file: str, target: str) -> bool:
        if _folder(file) == _folder(target):
            return place(target) >= place(file)
        return rank(target) >= rank(file)

    breaches = [
        f"{file} imports {t}" for file, targets in files_imported().items() for t in targets if is_breach(file, t)
    ]
    assert breaches == []


def test_every_file_has_a_rank() -> None:
    for file in files_imported():
        rank(file)
        if _folder(file) != file:
            place(file)


def _folder(file: str) -> str:
    """`research_env/retrieval` for whatever is below it; a file of the package itself is alone."""
    parts = file.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else file


def test_no_imports_run_in_a_circle() -> None:
    """Imports inside functions count: they would only hide one."""
    done: set[str] = set()

    def visit(file: str, way: tuple[str, ...]) -> None:
        assert file not in way, " -> ".join([*way[way.index(file) :], file])
        if file not in done:
            for target in files_imported()[file]:
                visit(target, (*way, file))
            done.add(file)

    for file in files_imported():
        visit(file, ())


def test_the_product_mocks_nothing() -> None:
    assert [str(found) for package in PACKAGES for found in imports(package) if "mock" in found.module] == []


@cache
def declared(*extras: str) -> set[str]:
    """Distribution names of the base install and the named extras, as `pyproject.toml` has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for e in extras for line in project["optional-dependencies"][e])]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("package", "at_import", "extras"),
    [
        ("research_env", True, ()),
        ("agents", True, ()),
        ("research_env", False, ("data", "dense", "elasticsearch", "serve")),
        ("agents", False, ("data", "elasticsearch", "learn")),
        ("learners", False, ("learn", "cpu", "gpu")),
    ],
)
def test_third_party_imports_are_declared(package: str, at_import: bool, extras: tuple[str, ...]) -> None:
    """What a file imports when it is imported comes with the base install; the rest with an extra."""
    distributions = packages_distributions()
    ours = {*PACKAGES, "benchmarks", "tests", *sys.stdlib_module_names}

    def known(found: Import) -> bool:
        names = {normal(name) for name in [found.top, *distributions.get(found.top, [])]}
        return bool(names & declared(*extras, *WITH_EXTRA.get(str(found.path), ())))

    foreign = [f for f in imports(package) if f.top not in ours and (f.at_import or not at_import)]
    assert [str(found) for found in foreign if not known(found)] == []


def test_files_stay_short() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines())
        for package in (*PACKAGES, "benchmarks", "tests")
        for file in (ROOT / package).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("package", ["research_env", "agents"])
def test_light_packages_load_nothing_heavy(package: str) -> None:
    """In a fresh process, because this one may have loaded torch for another test."""
    code = f"import sys, {package}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_parser_sees_every_kind_of_import() -> None:
    source = """
import os, torch.nn as nn
from learners.types import Batch
from . import types
from ..rewards import f1
def late():
    import vllm
    importlib.import_module("ray.util:thing")
"""
    found = list(parse(source, Path("research_env/tools/search.py")))
    assert {one.module for one in found if one.at_import} == {
        "os",
        "torch.nn",
        "learners.types",
        "research_env.tools",
        "research_env.rewards",
    }
    assert {one.module for one in found if not one.at_import} == {"vllm", "ray.util"}
    assert str(found[1]) == "research_env/tools/search.py:2 imports torch.nn"
