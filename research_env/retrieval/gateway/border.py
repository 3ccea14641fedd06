"""The border between the gym and a retriever: queries that any backend takes, hits that anything of ours can use."""

from __future__ import annotations

from math import isfinite
from numbers import Integral
from typing import Any

from research_env.errors import ConfigurationError, ResearchError, RetrievalError
from research_env.text import mended, one_line, short
from research_env.types import Hit, Passage

MAX_QUERY = 10_000
"""Characters of a query that are searched for. The rest is cut off: what a policy writes must not fail its batch."""


def check_asked(queries: Any, top_k: Any) -> None:
    """Raises ConfigurationError for a call that is none: a text in place of a list would be searched by letters."""
    if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
        raise ConfigurationError(f"queries={short(queries)}: give a list of texts")
    if not isinstance(top_k, Integral) or top_k < 1:
        raise ConfigurationError(f"top_k={short(top_k)}: give a whole number, 1 or more")


def query_text(query: str) -> str:
    """A query as backends get it: at most `MAX_QUERY` characters, all of them Unicode."""
    return mended(query[:MAX_QUERY])


def checked(found: Any, top_k: int, where: str) -> list[Hit]:
    """What a backend found for one query, at most `top_k` hits, with texts that are Unicode and scores that are finite.

    Raises:
        RetrievalError: these are not hits.
    """
    if not isinstance(found, list | tuple):
        raise RetrievalError(f"{where}: the retriever found {short(found)}, not a list of Hit")
    return [hit if _fit(hit) else _mended(hit, rank, where) for rank, hit in enumerate(found[:top_k])]


def failure(error: Exception, where: str) -> Exception:
    """An error of a backend as one of ours, which names what it was: a person, or a server's client, will read it."""
    if isinstance(error, ResearchError):
        return error
    failed = RetrievalError(f"{where}: the retriever failed ({mended(one_line(f'{type(error).__name__}: {error}'))})")
    failed.__cause__ = error
    return failed


def score(given: Any, rank: int) -> float:
    """A score as a finite number; where it is none, one that keeps the order: the rank, negated."""
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return -float(rank)
    return number if isfinite(number) else -float(rank)


def _fit(hit: Any) -> bool:
    """Whether a hit can be used as it is, as nearly all can: it takes about a microsecond."""
    try:
        passage = hit.passage
        text = passage.id + passage.title + passage.text
        text.isascii() or text.encode()
        return type(text) is str and type(hit.score) is float and isfinite(hit.score)
    except (AttributeError, TypeError, UnicodeEncodeError):
        return False


def _mended(hit: Any, rank: int, where: str) -> Hit:
    passage = getattr(hit, "passage", None)
    texts: list[Any] = [getattr(passage, name, None) for name in ("id", "title", "text")]
    if not all(isinstance(text, str) for text in texts):
        raise RetrievalError(f"{where}: the retriever found {short(hit)}, not a Hit of a Passage of three texts")
    ident, title, text = [mended(text) for text in texts]
    return Hit(Passage(ident, title, text), score(hit.score, rank))
