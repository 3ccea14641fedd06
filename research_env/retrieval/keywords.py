"""The words of a query that are worth searching for."""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category

from research_env.text import STOP_WORDS


@lru_cache
def _word(marks: str) -> re.Pattern[str]:
    """A word of letters, digits and `marks`."""
    one = rf"[\w{re.escape(marks)}]+"
    return re.compile(rf"{one}(?:['’]{one})*")


def keywords(query: str, language: str = "english") -> str:
    """The words of a query, each once, without those that only ask or join: BM25 adds up the terms that are left.

    On questions of MuSiQue, HotpotQA and 2WikiMultiHopQA these words find more gold passages than the whole question
    does, in two thirds of the time (`docs/retrieval.md`). A word with a capital inside the query stays, as in "the band
    The Who". A query of which no word would be left, or in another language, stays as it is.
    """
    if language != "english":
        return query
    kept: dict[str, str] = {}  # lower case -> as it was first written
    # `\w` holds no marks, and would cut Hindi and Arabic at each vowel.
    marks = "" if query.isascii() else "".join(sorted({c for c in query if category(c) in ("Mn", "Mc", "Cf")}))
    for place, word in enumerate(_word(marks).findall(query)):
        word = re.sub(r"['’]s$", "", word)
        low = word.lower()
        # The capital of a question's first word comes from the sentence, so it says nothing about the word.
        if low not in STOP_WORDS or (place > 0 and word != low):
            kept.setdefault(low, word)
    return " ".join(kept.values()) or query
