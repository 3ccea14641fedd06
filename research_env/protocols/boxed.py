r"""The final answer in `\boxed{}`."""

from __future__ import annotations

import re

from research_env.protocols.latex import escape

# Two backslashes are accepted because models often write LaTeX as if inside a string literal.
_BOX = re.compile(r"\\boxed\s*+\{")
_BRACE = re.compile(r"(?P<box>\\{1,2}boxed\s*+\{)|(?P<escape>\\[\\{}])|(?P<open>\{)|(?P<close>\})")


def box(answer: str) -> str:
    r"""`answer` in a box, e.g. `\boxed{ Ada }`, written so that `plain(last_boxed(…))` gives it back.

    What LaTeX would read otherwise is written as LaTeX writes it (`\{`, `\textbackslash{}`, `\$`), so that unbalanced
    braces survive as well.
    """
    return rf"\boxed{{ {escape(answer)} }}"


def last_boxed(text: str) -> str | None:
    r"""Content of the `\boxed{…}` that opens last, among those whose braces balance; None where there is none."""
    start, content = -1, None
    opened: list[int] = []  # where the content of each open box begins; -1 for a plain brace
    for match in _BRACE.finditer(text):
        if match.lastgroup == "box":
            opened.append(match.end())
        elif match.lastgroup == "open":
            opened.append(-1)
        elif match.lastgroup == "close" and opened and (begin := opened.pop()) > start:
            start, content = begin, slice(begin, match.start())
    return None if content is None else text[content]


def is_opened(text: str) -> bool:
    r"""Whether a `\boxed{` stands in the text, closed or not."""
    return _BOX.search(text) is not None
