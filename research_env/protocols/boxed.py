r"""The final answer in `\boxed{}`, and LaTeX as plain text."""

from __future__ import annotations

import re

# Two backslashes are accepted because models often write LaTeX as if inside a string literal.
_BRACE = re.compile(r"(?P<box>\\{1,2}boxed\s*+\{)|(?P<escape>\\[\\{}])|(?P<open>\{)|(?P<close>\})")

_LATEX = re.compile(
    r"(?P<backslash>\\textbackslash\{\})"
    r"|(?P<wrapper>\\{1,2}(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|emph|operatorname)\s*+\{)"
    r"|(?P<space>\\[\s,;:\\])"
    r"|(?P<nothing>\\[!()\[\]]|\$)"
    r"|\\(?P<escaped>[%$&#_{}])"
    r"|(?P<brace>[{}])"
)

_TO_LATEX = str.maketrans({"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$"})


def box(answer: str) -> str:
    r"""`answer` in a box, e.g. `\boxed{ Ada }`, written so that `plain(last_boxed(…))` gives it back.

    Braces, `\` and `$` are written as LaTeX writes them (`\{`, `\textbackslash{}`, `\$`), so that unbalanced braces
    survive as well.
    """
    return rf"\boxed{{ {answer.translate(_TO_LATEX)} }}"


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
    return any(match.lastgroup == "box" for match in _BRACE.finditer(text))


def plain(latex: str) -> str:
    r"""The text that a LaTeX answer shows: `\text{Ada}\,\$5` -> `Ada $5`. Commands it does not know stay."""
    if "\\" not in latex and "$" not in latex:
        return latex.strip()
    parts: list[str] = []
    wrapped: list[bool] = []  # for each open brace, whether it belongs to a command that was taken away
    done = 0
    for token in _LATEX.finditer(latex):
        parts.append(latex[done : token.start()])
        done = token.end()
        match token.lastgroup:
            case "backslash":
                parts.append("\\")
            case "space":
                parts.append(" ")
            case "escaped":
                parts.append(token["escaped"])
            case "wrapper":
                wrapped.append(True)
            case "brace" if token[0] == "{":
                wrapped.append(False)
                parts.append("{")
            case "brace" if not (wrapped and wrapped.pop()):
                parts.append("}")
    return ("".join(parts) + latex[done:]).strip()
