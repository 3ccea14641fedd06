"""The words of a query that are searched for."""

from __future__ import annotations

import pytest

from research_env.retrieval.embedded.bm25 import open_or_build
from research_env.retrieval.keywords import keywords
from research_env.types import Passage, Pool


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("Who wrote Amber Kesh?", "wrote Amber Kesh"),
        ("What's the capital of Jordan’s king's country?", "capital Jordan king country"),
        ("the king of kings and the King", "king kings"),
        ("the band The Who", "band The Who"),
        ("films by Who", "films Who"),
        ("Who is it?", "Who is it?"),
        ("", ""),
        ("?!", "?!"),
        ("Où est né O'Neill?", "Où est né O'Neill"),
    ],
)
def test_words_that_only_ask_are_left_out(query: str, kept: str) -> None:
    assert keywords(query) == kept


def test_a_query_of_nothing_else_is_searched_as_it_is(tmp_path) -> None:
    passages = [Passage("p", "The Who", "A rock band from London."), Passage("q", "Amber Kesh", "A novel.")]
    index = open_or_build(tmp_path, Pool("small", "v1", lambda: passages, lambda: len(passages)))
    assert [hit.passage.id for hit in index.search(["who?"], 5)[0]] == ["p"]
    assert [hit.passage.id for hit in index.search(["who wrote Amber Kesh?"], 5)[0]] == ["q"]
