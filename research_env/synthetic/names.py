"""Invented names. One fixed lexicon serves every world; a world's seed decides only how its words are combined.

The words of a name are shared on purpose: *Bram Kelmon*, *Kelmon Falls* and *Kelmon Press* are three entities,
and a search for one of them meets the others.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from random import Random

PLACE_FORMS = ("Falls", "Harbour", "Ford", "Heath", "Cross", "Quay", "Mount", "Bay", "Fields", "Gate", "Moor", "Glen")
WORK_FORMS = (
    "Amber", "Silent", "Crimson", "Hollow", "Golden", "Distant", "Broken", "Velvet", "Winter", "Burning",
    "Secret", "Silver", "Last", "Pale", "Iron", "Crystal", "Wandering", "Lonely", "Emerald", "Midnight",
)  # fmt: skip
ORGANISATION_FORMS = (
    "Press", "Institute", "Guild", "Foundry", "Museum", "Bank", "Academy", "Theatre", "Trust", "Mills",
    "Brewery", "Observatory", "Railway", "Gazette", "Orchestra", "Laboratory",
)  # fmt: skip

# The endings are ones that the English stemmer leaves alone, so that two names never share a stem.
_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS = "aeiou"
_SHORT = (_ONSETS, _VOWELS, ("b", "g", "k", "lm", "n", "nk", "rt", "sk", "x"))
_TAILS = ("ak", "an", "im", "ok", "on", "or", "un", "ux")
_LONG = (_ONSETS, _VOWELS, ("l", "lm", "n", "nd", "r", "rv", "st", "z"), _TAILS)
_LONGER = (_ONSETS, _VOWELS, ("d", "l", "m", "n", "r", "v"), _VOWELS, ("l", "n", "r", "nd", "st", "z"), _TAILS)
_ENGLISH = {"Ban", "Bun", "Bank", "Drag", "Drink", "Fan", "Frank", "Gun", "Hen", "Hunk", "Ken", "Man", "Men", "Ran"}


@lru_cache
def _words(*syllables: tuple[str, ...] | str) -> tuple[str, ...]:
    """All words of a shape, in one fixed scattered order, so that any prefix is a fair sample."""
    words = ["".join(parts).capitalize() for parts in product(*syllables)]
    shuffle(words, Random(len(words)))
    return tuple(word for word in words if word not in _ENGLISH)


def shuffle(items: list, rng: Random) -> None:
    """Fisher-Yates on `rng.random()` alone: the one stream that Python promises to keep on every version."""
    for i in range(len(items) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        items[i], items[j] = items[j], items[i]


def make_names(kind: str, count: int, rng: Random) -> list[str]:
    """`count` distinct names of one kind, of two words each. Up to 500,000 of a kind."""
    # 160 first names and 400 stems: so few that a world of the default size shows every word in its training split.
    # A tokenizer made from that split would cut an unseen word into pieces, and policies copy pieces wrongly.
    forms = {
        "person": _words(*_SHORT)[:160],
        "place": PLACE_FORMS,
        "work": WORK_FORMS,
        "organisation": ORGANISATION_FORMS,
    }[kind]
    # Enough stems that the names fill at most half of the combinations, but no more, because namesakes are wanted.
    size = max(400, -(-2 * count // len(forms)))
    stems = _words(*_LONG)
    stems = (stems if size <= len(stems) else stems + _words(*_LONGER))[:size]
    first, second = (forms, stems) if kind in ("person", "work") else (stems, forms)
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[f"{first[int(rng.random() * len(first))]} {second[int(rng.random() * len(second))]}"] = None
    return list(chosen)
