"""What of a question is worth looking up by terms."""

from __future__ import annotations

import re

from research_env.text import STOP_WORDS

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def keywords(query: str, language: str = "english") -> str:
    """The words of a query, each once, without those that only ask or join: BM25 adds up the terms that are left.

    Of MuSiQue, HotpotQA and 2WikiMultiHopQA questions it finds more gold passages than the whole question does, in two
    thirds of the time (`docs/retrieval.md`). A capital inside the query keeps a word, as in "the band The Who", and so
    does having no other. In any other language the query stays as it is.
    """
    if language != "english":
        return query
    kept: dict[str, str] = {}  # lower case -> as it was first written
    for place, word in enumerate(_WORD.findall(query)):
        word = re.sub(r"['’]s$", "", word)
        low = word.lower()
        # The first word of a question has its capital from the sentence alone: it tells nothing.
        if low not in STOP_WORDS or (place > 0 and word != low):
            kept.setdefault(low, word)
    return " ".join(kept.values()) or query
