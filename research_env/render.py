"""An episode as text for a person."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from research_env.text import printable

_STYLES = {"prompt": "bold", "policy": "cyan", "environment": "dim"}
_TAG = re.compile(r"</?[a-z]{2,10}>")


def render(transcript: Sequence[tuple[str, str]]) -> str:
    """`(who, text)` parts as ANSI-coloured text; who is `prompt`, `policy` or `environment`."""
    text = Text()
    for who, part in transcript:
        # A terminal must not be steered by what a policy or a passage wrote.
        piece = Text(printable(part, keep="\n\t"), style=_STYLES[who])
        piece.highlight_regex(_TAG, "yellow")
        text.append_text(piece)
        if who == "prompt":
            text.append("\n")
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=100).print(text)
    return out.getvalue()
