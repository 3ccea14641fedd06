"""The border of the gym: what a policy writes must fit any backend, what a backend finds must fit anything of ours."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval.gateway.border import MAX_QUERY
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.retrieval.gateway.recording import Recording, Replay
from research_env.text import mended
from research_env.types import Hit, Passage
from tests.research_env.retrieval.fake_backend import Backend

PLAIN = Hit(Passage("p0", "Amber Kesh", "A novel."), 0.5)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Amber", "Amber"),
        ("Élan 北京 😀\0", "Élan 北京 😀\0"),
        ("a\ud800b", "a�b"),
        ("\udc00", "�"),
        ("\ud83d\ude00!", "😀!"),
        ("\ude00\ud83d", "��"),
        ("\ufeffx\ud800", "\ufeffx�"),
    ],
)
def test_texts_become_unicode(text: str, wanted: str) -> None:
    assert mended(text) == wanted


def finds(found: Any, **options: Any) -> Gateway:
    backend = Backend()
    backend.search = lambda queries, top_k: [found for _ in queries]  # type: ignore[method-assign]
    return Gateway(backend, GatewayOptions(**options))


@pytest.mark.parametrize("field", ["id", "title", "text"])
def test_no_half_of_a_surrogate_pair_comes_from_a_backend(field: str, tmp_path: Path) -> None:
    texts = {"id": "p1", "title": "Bram", "text": "Born in Lundor."}
    found = [PLAIN, Hit(Passage(**texts | {field: "Élan \ud800!"}), 0.25)]
    wanted = [PLAIN, Hit(Passage(**texts | {field: "Élan �!"}), 0.25)]
    file = str(tmp_path / "run.sqlite")
    gateway = finds(found, recording=file)
    assert gateway.search(["q"], 2) == gateway.search(["q"], 2) == [wanted]
    gateway.close()
    assert Replay(file).search(["q"], 2) == [wanted]


def test_no_half_of_a_surrogate_pair_comes_from_an_old_recording(tmp_path: Path) -> None:
    file = str(tmp_path / "run.sqlite")
    gateway = finds([PLAIN], recording=file)
    assert gateway._recording is not None
    gateway._recording.put([("q", 1, [Hit(Passage("p", "t\ud800", "x"), 1.0)])])
    assert gateway.search(["q"], 1) == [[Hit(Passage("p", "t�", "x"), 1.0)]]
    assert Recording(file).get("q", 1) == [Hit(Passage("p", "t�", "x"), 1.0)]


@pytest.mark.parametrize(
    ("score", "wanted"),
    [(np.float32(0.5), 0.5), (2, 2.0), (math.nan, -1.0), (math.inf, -1.0), (None, -1.0), ("x", -1.0)],
)
def test_scores_become_finite_numbers(score: Any, wanted: float) -> None:
    [[_, hit]] = finds([PLAIN, Hit(PLAIN.passage, score)]).search(["q"], 2)
    assert hit == Hit(PLAIN.passage, wanted)
    assert json.dumps(hit.score, allow_nan=False)


@pytest.mark.parametrize(
    "found",
    [
        None,
        "hits",
        {"hits": []},
        [None],
        [("p0", 1.0)],
        [Hit(Passage("p0", None, "text"), 1.0)],  # type: ignore[arg-type]
        [Hit(Passage(0, "title", "text"), 1.0)],  # type: ignore[arg-type]
        [Hit(Passage(b"p0", b"title", b"text"), 1.0)],  # type: ignore[arg-type]
    ],
)
def test_what_are_no_hits_is_one_line(found: Any) -> None:
    with pytest.raises(RetrievalError, match=r"^pool: the retriever found .*, not a .*Hit") as caught:
        finds(found).search(["q"], 1)
    assert "\n" not in str(caught.value)


def test_no_more_hits_than_asked_for() -> None:
    assert finds([PLAIN, PLAIN, PLAIN]).search(["q"], 2) == [[PLAIN, PLAIN]]


@pytest.mark.parametrize("max_batch", [1, 4])
def test_queries_are_cut_and_mended(max_batch: int) -> None:
    backend = Backend(max_batch)
    gateway = Gateway(backend)
    long = "x" * MAX_QUERY
    assert gateway.search([long + "y"], 1) == gateway.search([long + "z"], 1) == gateway.search([long], 1)
    gateway.search(["a\ud800"], 1)
    assert backend.calls == [[long], ["a�"]]
    assert gateway.stats.cached == 2, "queries that are the same once cut are one"


@pytest.mark.parametrize(
    ("queries", "top_k", "said"),
    [
        ("alpha", 2, "give a list of texts"),
        ([3], 2, "give a list of texts"),
        (["alpha", None], 2, "give a list of texts"),
        (["alpha"], 2.5, "top_k=2.5: give a whole number, 1 or more"),
        (["alpha"], "2", "give a whole number, 1 or more"),
        (["alpha"], 0, "top_k=0: give a whole number, 1 or more"),
    ],
)
def test_a_call_that_is_none_is_refused(queries: Any, top_k: Any, said: str) -> None:
    with closing(Gateway(Backend())) as gateway, pytest.raises(ConfigurationError, match=said):
        gateway.search(queries, top_k)
