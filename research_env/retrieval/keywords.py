"""What of a question is worth looking up by terms."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_SNOWBALL = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it
its itself they them their theirs themselves what which who whom whose this that these those am is are was were be
been being have has had having do does did doing would should could ought a an the and but if or because as until
while of at by for with about against between into through during before after above below to from up down in out
on off over under again further then once here there when where why how all any both each few more most other some
such no nor not only own same so than too very
"""
_STOP = frozenset(_SNOWBALL.split())
"""The stop words of Snowball's English stemmer, without its contractions, and "whose"."""


def keywords(query: str, language: str = "english") -> str:
    """The words of a query, each once, without those that only ask or join: BM25 adds up the terms that are left.

    Of MuSiQue, HotpotQA and 2WikiMultiHopQA questions it finds more gold passages than the whole question does, in two
    thirds of the time (`docs/retrieval.md`). A capital inside the query keeps a word, as in "the band The Who", and so
    does having no other. In any other language the query stays as it is.
    """
    if language != "english":
        return query
    kept: dict[str, str] = {}
    for place, word in enumerate(_WORD.findall(query)):
        word = re.sub(r"['’]s$", "", word)
        low = word.lower()
        if low not in _STOP or (place > 0 and word != low):
            kept.setdefault(low, word)
    return " ".join(kept.values()) or query
