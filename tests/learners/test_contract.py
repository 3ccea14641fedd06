"""The learners read of an environment what the contract names, and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners import contract, metrics

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "metadata": set(contract.Metadata.__annotations__),
    "info": set(contract.Info.__annotations__) | set(contract.RewardParts.__annotations__),
}


def reads(source: str) -> Iterator[tuple[str, str]]:
    """`("info", key)` and `("metadata", key)` wherever a literal key is read: `x.info.get("hops")`, `info["hops"]`,
    `"hops" in info`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=str(key)), *_]):
                pass
            case ast.Subscript(value=owner, slice=ast.Constant(value=str(key))):
                pass
            case ast.Compare(
                left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[owner]
            ):  # fmt: skip
                pass
            case _:
                continue
        name = {ast.Name: "id", ast.Attribute: "attr"}.get(type(owner))
        if name and getattr(owner, name) in KEYS:
            yield getattr(owner, name), key


def test_the_reader_sees_every_way_to_read_a_key() -> None:
    source = """
a = trajectory.info.get("hops", 1)
b = info["question_id"]
c = "em" in t.info and "f1" not in info
d = env.unwrapped.metadata.get("stop", ())
e = options.get("other")
f = info[key]
"""
    assert sorted(reads(source)) == [
        ("info", "em"), ("info", "f1"), ("info", "hops"), ("info", "question_id"), ("metadata", "stop"),
    ]  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "learners").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_every_key_that_is_read_is_in_the_contract(file: Path) -> None:
    unknown = {(name, key) for name, key in reads(file.read_text("utf-8")) if key not in KEYS[name]}
    assert unknown == set()


def test_metrics_are_keys_of_the_contract() -> None:
    """They are read by a variable, which the reader cannot see."""
    assert set(metrics.METRICS) <= KEYS["info"]
    assert KEYS["info"] >= contract.NOT_KEPT


def test_the_keys_that_learners_have_always_read_are_there() -> None:
    assert {"stop", "corpus", "tools"} <= KEYS["metadata"]
    assert {"question_id", "hops", "em", "searches", "format_ok", "golden_answers"} <= KEYS["info"]


@pytest.mark.parametrize("shape", [contract.Metadata, contract.Info])
def test_every_key_is_optional_and_documented(shape: type) -> None:
    tree = ast.parse(Path(contract.__file__).read_text("utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == shape.__name__]
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(body[at + 1], ast.Expr), ast.unparse(node)
    assert not shape.__required_keys__  # type: ignore[attr-defined]
