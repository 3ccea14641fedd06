"""Tags of any protocol: find them in a turn of the policy, and take them out of untrusted text.

Everything here is one or a few forward scans, so that no text, however hostile, takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class Tags:
    """A set of tag names, e.g. `Tags(["think", "search", "result", "answer"])`. Stateless."""

    def __init__(self, names: Sequence[str]) -> None:
        # From a `<` that opens something which reads as one of the tags, to its `>` if it has one. Between `<` and the
        # name there may be anything but word characters ("</ search>", "<!SEARCH x=1>"). The possessive quantifiers
        # keep it linear. ‹ and › are excluded, so that neutralising neutralised text changes nothing.
        either = "|".join(map(re.escape, names))
        self._tag = re.compile(rf"<([^\w<>‹›]*+(?:{either})\b[^<>]*+)(>?)", re.IGNORECASE)

    def neutralise(self, text: str) -> str:
        """`text` in which `<` and `>` of whatever reads as one of the tags have become `‹` and `›`.

        Covers any case, inner white space, attributes and tags left open; idempotent.
        """
        return self._tag.sub(_with_quotes, text) if "<" in text else text


def first(text: str, tags: Sequence[str]) -> tuple[str | None, int]:
    """The tag that comes first in a text and its position; `(None, -1)` where there is none."""
    earliest, at = None, -1
    for tag in tags:
        position = text.find(tag)
        if position >= 0 and (at < 0 or position < at):
            earliest, at = tag, position
    return earliest, at


def _with_quotes(tag: re.Match[str]) -> str:
    return f"‹{tag[1]}{'›' if tag[2] else ''}"
