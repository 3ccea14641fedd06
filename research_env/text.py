"""Text: normalisation of answers, stop words, ids of passages, and what is safe to print."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable
from html import unescape
from typing import Any

_ARTICLE = re.compile(r"\b(a|an|the)\b")
# Half of a surrogate pair is no character at all. As JSON reads them, "\r" alone is the "\r" of "\right", and a tab
# before a small letter the "\t" of "\text".
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)|\t(?=[a-z])")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_SNOWBALL = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it
    its itself they them their theirs themselves what which who whom whose this that these those am is are was were be
    been being have has had having do does did doing would should could ought a an the and but if or because as until
    while of at by for with about against between into through during before after above below to from up down in out
    on off over under again further then once here there when where why how all any both each few more most other some
    such no nor not only own same so than too very
"""
STOP_WORDS = frozenset(_SNOWBALL.split())
"""The stop words of Snowball's English stemmer, without its contractions, and "whose"."""

_FUNCTION_WORDS = """
    a an and are by did do does for from has have in is of on that the to was were what when where which who whom whose
    how with
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""A shorter list: the words of a question that the random agent does not use. Warm-started policies depend on it."""


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces: `"The U.S.  Navy"` -> `"us navy"`."""
    return " ".join(_ARTICLE.sub(" ", lower_without_punctuation(text)).split())


def lower_without_punctuation(text: str) -> str:
    """The first half of `normalize_answer`. It still contains every word of the normalised text, unchanged."""
    return text.lower().translate(_NO_PUNCTUATION)


def passage_id(title: str, text: str) -> str:
    """First 16 hexadecimal digits of the sha256 of title, newline, text: the same in every pool the passage is in."""
    return hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:16]


_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def plain_title(title: str) -> str:
    """`title` in one line, with its HTML entities replaced, once: dumps of Wikipedia have `"Steers &amp; Stripes"`.

    For titles alone: the text of an article on a character may speak of its entity.
    """
    # `unescape` alone would also take entities without their semicolon: "AT&T" is safe, "R&Dagger" is not.
    title = _ENTITY.sub(lambda found: unescape(found.group()), title) if "&" in title else title
    return title if len(title.splitlines()) <= 1 else one_line(title)


def printable(text: str, keep: str = "") -> str:
    """`text` without characters that control a terminal, except for those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def mended(text: str) -> str:
    """`text` as Unicode: two halves of a surrogate pair side by side are one character, a lone half is U+FFFD.

    JSON can hold such halves, and so can what a policy samples; no file, tokenizer or server takes them.
    """
    if text.isascii():  # nearly all texts, and much faster than to encode them
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def control_character(text: str) -> str | None:
    """Where a control character stands in a text, for a message; None where there is none but tabs and line ends."""
    found = _CONTROL.search(text)
    return None if found is None else f"{found[0]!r} before {text[found.end() : found.end() + 12]!r}"


def one_line(text: object) -> str:
    """`text` with its white space collapsed, for a message of one line."""
    return " ".join(str(text).split())


def short(value: Any, form: Callable[[Any], str] = repr) -> str:
    """`value` in at most 80 characters, for a message."""
    text = form(value)
    return text if len(text) <= 80 else text[:77] + "…"
