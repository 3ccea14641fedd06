r"""The final answer in `\boxed{}`, and LaTeX as plain text."""

from __future__ import annotations

import pytest

from research_env.protocols.base import Answer, Malformed
from tests.research_env.actions import PROTOCOL


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (r"\boxed{Paris}", "Paris"),
        (r"\boxed{ Paris }", "Paris"),
        (r"\boxed {Paris}", "Paris"),
        (r"\\boxed{Paris}", "Paris"),
        (r"\boxed{}", ""),
        (r"first \boxed{Rome}, then \boxed{Paris}", "Paris"),
        (r"\boxed{Rome} or \boxed{Paris", "Rome"),
        (r"\boxed{\boxed{Paris}}", "Paris"),
        (r"\boxed{{a}{b{c}}}", "{a}{b{c}}"),
        (r"\boxed{\text{Bram Tovik}}", "Bram Tovik"),
        (r"\boxed{\textbf{\mathrm{Bram}}\ Tovik}", "Bram Tovik"),
        (r"\boxed{$\text{in }\{1,2\}$}", "in {1,2}"),
        (r"\boxed{\$5\,million, 20\%}", "$5 million, 20%"),
        (r"\boxed{AT\&T \textbackslash{} R\_D \#1}", r"AT&T \ R_D #1"),
        (r"\boxed{\(x\)}", "x"),
        (r"\boxed{\frac{1}{2}}", "1/2"),
        (r"\boxed{a\}b}", "a}b"),
        (r"{ } } \boxed{a} } {", "a"),
        (r"\boxed{a}} b", "a"),
    ],
)
def test_box(content: str, answer: str):
    turn = PROTOCOL.parse(f"<think> t </think> <answer> {content} </answer>")
    assert turn.action == Answer(answer)
    assert turn.format_ok


@pytest.mark.parametrize("content", ["Paris", r"\boxed", r"\boxed{a", r"\boxed{a\}", r"\boxed{{a}", "{Paris}"])
def test_an_answer_without_a_box_is_malformed(content: str):
    turn = PROTOCOL.parse(f"<think> t </think> <answer> {content} </answer>")
    opened = "{" in content and "boxed" in content
    assert turn.action == Malformed(
        r"the \boxed{ of the answer is not closed" if opened else r"no \boxed{…} in the answer"
    )
    assert not turn.format_ok
