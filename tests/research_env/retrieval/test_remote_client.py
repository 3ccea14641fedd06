"""The client over servers of another make: what they say wrong, slowly or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from research_env.errors import RetrievalError, RetrievalUnavailable
from research_env.retrieval import open_retriever
from research_env.retrieval.remote.client import RemoteOptions, RemoteRetriever
from research_env.types import Corpus, Hit, Passage

NOVEL = {"id": "p0", "contents": '"Amber Kesh"\nAmber Kesh is a novel by Bram Tovik.'}
BORN = {"id": "p1", "contents": '"Bram Tovik"\nBram Tovik was born in Lundor Quay.'}
FIRST = Passage("p0", "Amber Kesh", "Amber Kesh is a novel by Bram Tovik.")


class Other(BaseHTTPRequestHandler):
    """Search-R1's own: nothing but /retrieve. What it says is up to each test."""

    says: tuple[int, str] = (200, "{}")
    about = ""
    """What it says of its corpus; nothing is status 404."""
    pause = 0.0
    """Seconds between letters."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, text = self.says
        self.send_response(status if self.path == "/retrieve" else 404)
        self.end_headers()
        for letter in [text] if not self.pause else text:
            self.wfile.write(letter.encode("utf-8", "surrogatepass"))
            time.sleep(self.pause)

    def do_GET(self) -> None:
        self.send_response(200 if self.about else 404)
        self.end_headers()
        self.wfile.write(self.about.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_server_that_does_not_tell_its_corpus(other: str) -> None:
    Other.says = 200, json.dumps({"result": [[{"document": NOVEL, "score": 0.5}, {"document": BORN, "score": 0.1}]]})
    retriever = open_retriever(other)
    assert retriever.corpus == Corpus(other, 0, None)
    assert retriever.search(["x"], 1) == [[Hit(FIRST, 0.5)]]
    Other.says = 200, json.dumps({"result": [[{**NOVEL, "id": 0}]]})
    assert retriever.search(["z"], 1)[0][0].passage.id == "0"
    Other.says = 200, json.dumps({"result": [[NOVEL]]})
    assert retriever.search(["y"], 1) == [[Hit(FIRST, 0.0)]]


@pytest.mark.parametrize(
    ("says", "error", "said"),
    [
        ((200, "<html>"), RetrievalError, "did not answer in JSON but with '<html>'"),
        ((200, '{"answer": []}'), RetrievalError, "does not speak the protocol search-r1"),
        ((200, '{"result": []}'), RetrievalError, "does not speak the protocol search-r1"),
        ((200, '{"result": [null]}'), RetrievalError, "does not speak the protocol search-r1"),
        ((200, '{"result": [{}]}'), RetrievalError, "does not speak the protocol search-r1"),
        ((200, '{"result": [[{"title": "x"}]]}'), RetrievalError, "is not a passage; it needs contents"),
        ((400, "what?"), RetrievalError, "status 400"),
        ((500, "out of memory"), RetrievalUnavailable, "status 500"),
        ((503, "starting"), RetrievalUnavailable, "status 503"),
    ],
)
def test_servers_that_fail(other: str, says: tuple[int, str], error: type[Exception], said: str) -> None:
    Other.says = says
    with pytest.raises(error, match=said) as caught:
        open_retriever(other)
    assert type(caught.value) is error


def test_a_server_that_never_finishes(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every letter comes in time, the answer does not."""
    monkeypatch.setattr(Other, "says", (200, " " * 40))
    monkeypatch.setattr(Other, "pause", 0.1)
    start = time.monotonic()
    with pytest.raises(RetrievalUnavailable, match=r"did not answer within 0.3 s"):
        open_retriever(other, timeout=0.3)
    assert time.monotonic() - start < 3


def test_a_retriever_that_cannot_be_opened_leaves_no_connection(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[httpx.Client] = []
    monkeypatch.setattr(httpx.Client, "close", lambda client: closed.append(client))
    Other.says = 200, '{"result": []}'
    with pytest.raises(RetrievalError):
        open_retriever(other)
    assert len(closed) == 1
    Other.says = 200, json.dumps({"result": [[NOVEL]]})
    with pytest.raises(RetrievalError, match="recording="):
        open_retriever(other, recording="/no/such/folder/run.sqlite")
    assert len(closed) == 2


def test_what_no_text_can_hold_is_mended(other: str) -> None:
    """JSON can hold halves of surrogate pairs as escapes, and this server says them in bytes as well."""
    document = {"id": "p\ud800", "contents": '"Amber\udc00"\nA novel \ud83d\ude00.'}
    found = Passage("p�", "Amber�", "A novel 😀.")
    Other.says = 200, json.dumps({"result": [[document]]})
    assert open_retriever(other).search(["x"], 1) == [[Hit(found, 0.0)]]
    assert RemoteRetriever(other, RemoteOptions()).search(["x"], 1) == [[Hit(found, 0.0)]]
    Other.says = 200, json.dumps({"result": [[document]]}, ensure_ascii=False)
    [[hit]] = open_retriever(other).search(["x"], 1)
    assert hit.passage.text == "A novel ������."
    f"{hit.passage}".encode()


def test_what_a_server_says_of_its_corpus_is_mended(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"name": "wiki\ud800", "passages": 3, "hash": 5, "settings": {"engine": "\udfff"}}
    monkeypatch.setattr(Other, "about", json.dumps(said))
    retriever = open_retriever(other)
    assert retriever.corpus == Corpus("wiki�", 3, "5")
    assert retriever.settings["theirs"] == {"engine": "�"}


@pytest.mark.parametrize(
    "about", ["[]", '{"name": "x"}', '{"name": "x", "passages": 1e999, "hash": null}', "[" * 99_999]
)
def test_a_server_that_tells_its_corpus_wrongly(other: str, about: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Other, "about", about)
    Other.says = 200, json.dumps({"result": [[NOVEL]]})
    assert open_retriever(other).corpus == Corpus(other, 0, None)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999", "1" + "0" * 400, '"high"', "null"])
def test_scores_that_are_no_numbers_keep_the_order(other: str, score: str) -> None:
    found = f'{{"document": {json.dumps(NOVEL)}, "score": {score}}}'
    Other.says = 200, f'{{"result": [[{found}, {found}]]}}'
    assert [hit.score for hit in open_retriever(other).search(["x"], 2)[0]] == [0.0, -1.0]
