"""The hash of a corpus."""

from __future__ import annotations

import random

from research_env.corpora.content import ContentHash
from research_env.types import Passage


def test_the_hash_is_of_the_content_and_not_of_the_order() -> None:
    rng = random.Random(0)
    texts = [Passage(str(i), f"t{i}", f"x{i % 3}") for i in range(50)]

    def digest(some: list[Passage]) -> str:
        content = ContentHash()
        for passage in some:
            content.add(passage)
        assert content.passages == len(some)
        return content.hexdigest()

    assert digest(texts) == digest(rng.sample(texts, 50))
    others = [texts[:-1], [*texts, texts[0]], [*texts[:-1], Passage("49", "t49", "x")], [Passage("0", "t0x", "0")]]
    assert len({digest(texts), *map(digest, others)}) == 5
    assert digest([Passage("a", "b", "c")]) != digest([Passage("a", "", "b\0c")])
