r"""LaTeX as the plain text that it shows, and plain text as LaTeX.

No library does it here. Of two that were tried, pylatexenc 2.10 reads `100% sure` as `100`, drops the `\Users` of a
path and fails on deep nesting, and latexcodec 3.0 knows accents alone. An answer is plain text with some LaTeX in it or
none: what is no LaTeX, or no LaTeX that is known here, stays as it is. One pass: no text takes more than linear time.
"""

from __future__ import annotations

import re
import unicodedata

from research_env.protocols.latex_tables import (
    GAPS,
    HIDDEN,
    LENGTHS,
    MARKS,
    OPERATORS,
    PAIRS,
    SPACES,
    SWITCHES,
    SYMBOLS,
    WRAPPERS,
)  # fmt: skip

# With spaces around it stays: such answers exist, "10 July -- 31 October 1940".
_BETWEEN_WORDS = r"(?<=[\w})])---?(?=[\w{(\\])"
_DASH = re.compile(_BETWEEN_WORDS)
# Two backslashes are accepted because models often write LaTeX as if inside a string literal.
_TOKEN = re.compile(
    r"(?P<degree>\^\s*+(?:\{\s*+\\{1,2}circ\s*+\}|\\{1,2}circ(?![A-Za-z]))(?:\s++(?=[CFK]\b))?)"
    r"|\\{1,2}(?P<word>[A-Za-z]++)\*?"
    r"|\\{1,2}(?P<accent>['`^\"~=.])"
    r"|\\{1,2}(?P<escaped>[%$&#_])"
    r"|(?P<space>\\[\s,;:>\\])"
    r"|\\(?P<brace_escaped>[{}])|\\(?P<slash>/)"
    r"|(?P<nothing>\\[!()\[\]@-])"
    r"|(?P<dollar>\$\$?)"
    r"|(?P<tie>~)"
    rf"|(?P<dash>{_BETWEEN_WORDS})"
    r"|(?P<brace>[{}])"
)
# Its folders may be called `new` or `to`; LaTeX in an answer with a colon has braces, nearly always.
_PATH = re.compile(r"\b[A-Za-z]:\\")
_OPTIONS = r"(?:\s*+\[[^\[\]{}]*+\])*+\s*+"
_ARGUMENT = re.compile(_OPTIONS + r"\{[^{}]*+\}")
_FIRST = re.compile(_OPTIONS + r"\{")
_OPENING = re.compile(r"\s*+\{")
_LENGTH = re.compile(r"\s*+[-+]?[\d.]++\s*+(?:em|ex|pt|pc|in|bp|cm|mm|mu)(?![A-Za-z])")
_BLANK = re.compile(r"\s++")
_AFTER_WORD = re.compile(r"\{\}|\s++")
# What an accent stands on: `{e}`, `{\i}`, `\i`, `e`; after a command of letters a bare letter needs a space before it.
_IN_BRACES = re.compile(r"\s*+\{\s*+(?:\\([A-Za-z]++)(?:\{\}|\s++)?|([^\W\d_]*+))\s*+\}")
_COMMAND = re.compile(r"\s*+\\([A-Za-z]++)(?:\{\}|\s++)?")
_LETTER = re.compile(r"([^\W\d_])")
_SPACED_LETTER = re.compile(r"\s++([^\W\d_])")
_SECOND_MARK = re.compile(r"\s*+(\{?)\s*+\\(?:([A-Za-z]++)|(['`^\"~=.]))")
_NO_BASE = re.compile(r"\\(['`^\"~=.])(?![^\W\d_]|\{|\\)")
_AFTER_NO_BASE = re.compile(r"\s++[^\W\d_]")
_ONE_LETTER = re.compile(r"\s++[^\W\d_]\b")
_CONTRACTED = re.compile(r"(?:s|t|re|ll|ve|d|m)\b")
_DIGITS = re.compile(r"\s*+(\d)\s*+(\d)")

_LONGEST = 10_000

_ESCAPES = str.maketrans(
    {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "~": r"\textasciitilde{}"}
)  # fmt: skip


def escape(text: str) -> str:
    r"""`text` as LaTeX: `plain(escape(text))` is `text.strip()`, and its braces balance."""
    return _DASH.sub(lambda dash: r"\mbox{}".join(dash[0]), text.translate(_ESCAPES))


def plain(latex: str) -> str:
    r"""The text that a LaTeX answer shows: `\textbf{Pel\'e}\,\$5` -> `Pelé $5`. Commands it does not know stay.

    A text of more than 10,000 characters is no answer to a question, and stays as it is.
    """
    if len(latex) > _LONGEST or not ("\\" in latex or "$" in latex or "~" in latex or "--" in latex):
        return latex.strip()
    if "{" not in latex and _PATH.search(latex):
        return latex.strip()
    return _Reader(latex).read().strip()


class _Reader:
    def __init__(self, latex: str) -> None:
        self._latex, self._at = latex, 0
        self._parts: list[str] = []
        self._last = ""  # the newest part that is not empty
        self._closings: list[str] = []  # for each open brace, what its closing one becomes
        self._dollars: list[tuple[int, int, int]] = []  # where each stands in `_parts`, and its beginning and end
        # `\"Heroes\"` is quoted as in a string literal: its last mark stands on nothing, so that none is an accent.
        self._literal = {found[1] for found in _NO_BASE.finditer(latex) if not self._spaced(found)}
        # Without a command or mathematics in it, the text is no LaTeX, and its braces are meant.
        self._groups = "\\" in latex or latex.count("$") > 1

    def read(self) -> str:
        while token := _TOKEN.search(self._latex, self._at):
            self._add(self._latex[self._at : token.start()])
            self._at = token.end()
            self._add(getattr(self, f"_{token.lastgroup}")(token))
        self._add(self._latex[self._at :])
        self._remove_math_marks()
        return "".join(self._parts)

    def _add(self, part: str) -> None:
        self._parts.append(part)
        self._last = part or self._last

    def _word(self, token: re.Match[str]) -> str:
        name = token["word"]
        if name in MARKS and (shown := self._accented(name, _SPACED_LETTER)):
            return shown
        first = _FIRST.match(self._latex, self._at)
        if name in PAIRS:
            return self._pair(token, first)
        if name in WRAPPERS and first:
            self._at = first.end()
            self._closings.append('"' if name == "enquote" else "")
            return self._closings[-1]
        if name == "url" and (address := _ARGUMENT.match(self._latex, self._at)):
            self._at = address.end()
            return address[0].partition("{")[2][:-1].replace("\\", "")
        if name in HIDDEN and _ARGUMENT.match(self._latex, self._at):
            return self._hidden(name)
        if name in LENGTHS and (length := _LENGTH.match(self._latex, self._at)):
            self._at = length.end()
            return self._gap()
        opening = _OPENING.match(self._latex, self._at)
        known = name in SYMBOLS or name in SWITCHES or name in SPACES or name in WRAPPERS
        if not known:
            if opening:  # its braces belong to it, and stay with it
                self._at = opening.end()
                self._closings.append("}")
            unknown = self._latex[token.start() : self._at]
            return unknown.replace("\\\\", " ", 1)  # two backslashes are a line break
        shown = SYMBOLS.get(name, "")
        after = _AFTER_WORD.match(self._latex, self._at)
        # LaTeX ends a command with a space and drops it; between an operator and what follows it puts one of its own.
        if after and shown not in OPERATORS:
            self._at = after.end()
        return self._gap() if name in SPACES else shown

    def _hidden(self, name: str) -> str:
        for _ in range(HIDDEN[name]):
            if hidden := _ARGUMENT.match(self._latex, self._at):
                self._at = hidden.end()
        if shown := _FIRST.match(self._latex, self._at):
            self._at = shown.end()
            self._closings.append("")
        return self._gap() if name in GAPS else ""

    def _pair(self, token: re.Match[str], opening: re.Match[str] | None) -> str:
        before = " " if token.start() and self._latex[token.start() - 1].isdigit() else ""  # 1\frac{1}{2}
        if opening:
            self._at = opening.end()
            self._closings.append(PAIRS[token["word"]])
            return before
        if digits := _DIGITS.match(self._latex, self._at):
            self._at = digits.end()
            return f"{before}{digits[1]}/{digits[2]}"
        return token[0]

    def _accent(self, token: re.Match[str]) -> str:
        mark = token["accent"]
        within = token.start() > 0 and self._latex[token.start() - 1].isalpha()
        if mark in self._literal or (mark == "'" and within and self._apostrophe()):
            return mark
        letter = _SPACED_LETTER if self._spaced(token) else _LETTER
        # Where there is no such letter, it is an escaped apostrophe: O\'Brien.
        return self._accented(mark, letter) or mark

    def _apostrophe(self) -> bool:
        """Whether what follows goes on after an apostrophe: don't, and O'Connor, which is no OĆonnor."""
        after = self._latex[self._at : self._at + 2]
        return bool(_CONTRACTED.match(self._latex, self._at)) or (after[:1].isupper() and after[1:].islower())

    def _spaced(self, token: re.Match[str]) -> bool:
        r"""Whether an accent stands before a space and its letter, as TeX allows: `Caf\' e`, `\. Izmir`.

        The same signs end quotations and words: `the boys\' album`, `\"Heroes\" album`, `the U.S\. army`.
        """
        mark, after = token[0][-1], token.end()
        if not _AFTER_NO_BASE.match(self._latex, after):
            return False
        before = self._latex[token.start() - 1 : token.start()]
        if not before.strip("{[( \n\t") or mark in "^~=":
            return True
        if mark == "'":
            return bool(_ONE_LETTER.match(self._latex, after))
        return mark != "." and self._latex.count(f"\\{mark}") == 1

    def _accented(self, mark: str, letter: re.Pattern[str], within: bool = False) -> str:
        """A letter with its accent; empty where none follows, and then nothing is read.

        It may have one more accent (`within`), as letters of Vietnamese do: `Nguy\\~{\\^e}n`.
        """
        if not within and (inner := self._accented_twice(mark)):
            return inner
        bare = letter.match(self._latex, self._at)
        found = bare or _IN_BRACES.match(self._latex, self._at) or _COMMAND.match(self._latex, self._at)
        if not found:
            return ""
        base = found[1] if bare else (SYMBOLS.get(found[1], "") if found[1] else found[2])
        base = {"ı": "i", "ȷ": "j"}.get(base, base)
        shown = unicodedata.normalize("NFC", base[:1] + MARKS[mark]) + base[1:] if base else ""
        if bare and len(shown) > 1:
            return ""
        if not base and (bare or found[1] or found[0].strip() != "{}"):
            return ""
        self._at = found.end()
        return shown or mark  # `\~{}` is the mark alone

    def _accented_twice(self, mark: str) -> str:
        start, second = self._at, _SECOND_MARK.match(self._latex, self._at)
        if not second or (name := second[2] or second[3]) not in MARKS:
            return ""
        self._at = second.end()
        shown = self._accented(name, _SPACED_LETTER if second[2] else _LETTER, within=True)
        if shown and (not second[1] or self._latex.startswith("}", self._at)):
            self._at += len(second[1])
            return unicodedata.normalize("NFC", shown[:1] + MARKS[mark]) + shown[1:]
        self._at = start
        return ""

    def _degree(self, token: re.Match[str]) -> str:
        return "°"

    def _escaped(self, token: re.Match[str]) -> str:
        return token["escaped"]

    def _brace_escaped(self, token: re.Match[str]) -> str:
        return token["brace_escaped"]

    def _slash(self, token: re.Match[str]) -> str:
        return "/"

    def _nothing(self, token: re.Match[str]) -> str:
        return ""

    def _space(self, token: re.Match[str]) -> str:
        return self._gap()

    def _gap(self) -> str:
        """One space, where there is none yet."""
        if spaces := _BLANK.match(self._latex, self._at):
            self._at = spaces.end()
        return "" if self._last[-1:].isspace() else " "

    def _tie(self, token: re.Match[str]) -> str:
        # `~` is a space between words. "~5", "/~user" and "1990~95" mean the sign itself.
        before, after = self._latex[token.start() - 1 : token.start()], self._latex[token.end() : token.end() + 1]
        between = (before.isalnum() or before in ".,)}'’") and (after.isalnum() or after in "\\{(")
        return " " if before and after and between and not (before.isdigit() and after.isdigit()) else "~"

    def _dash(self, token: re.Match[str]) -> str:
        return "–" if token[0] == "--" else "—"

    def _dollar(self, token: re.Match[str]) -> str:
        self._dollars.append((len(self._parts), token.start(), token.end()))
        return token[0]

    def _brace(self, token: re.Match[str]) -> str:
        if token[0] == "{":
            self._closings.append("" if self._groups else "}")
            return "" if self._groups else "{"
        closing = self._closings.pop() if self._closings else "}"
        if closing in PAIRS.values():
            opening = _OPENING.match(self._latex, self._at)
            self._at = opening.end() if opening else self._at
            self._closings += [""] if opening else []
        elif closing == "}" and self._groups and (following := _OPENING.match(self._latex, self._at)):
            self._at = following.end()  # a further argument of a command that is not known
            self._closings.append("}")
            return "}{"
        return closing

    def _remove_math_marks(self) -> None:
        """Take out dollar signs that enclose something, as pandoc tells them from prices."""
        opened = None
        for place, begin, end in self._dollars:
            closes = not self._latex[begin - 1].isspace() and not self._latex[end : end + 1].isdigit()
            if opened is not None and closes and self._latex[begin:end] == self._parts[opened]:
                self._parts[opened] = self._parts[place] = ""
                opened = None
            else:
                opened = place if self._latex[end : end + 1].strip() else None
