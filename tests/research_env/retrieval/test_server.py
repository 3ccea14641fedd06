"""`python -m research_env serve` and the client: protocols, limits, token, metrics, shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from research_env.errors import RetrievalError, RetrievalUnavailable
from research_env.retrieval import open_retriever
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.types import Corpus, Hit, Passage

fastapi_client = pytest.importorskip("fastapi.testclient")
server = pytest.importorskip("research_env.retrieval.remote.server")

ROOT = Path(__file__).resolve().parents[3]
ROWS = [
    {"id": "p0", "title": "Amber Kesh", "text": "Amber Kesh is a novel by Bram Tovik."},
    {"id": "p1", "title": "Bram Tovik", "text": "Bram Tovik was born in Lundor Quay."},
]
NOVEL = {"id": "p0", "contents": '"Amber Kesh"\nAmber Kesh is a novel by Bram Tovik.'}
BORN = {"id": "p1", "contents": '"Bram Tovik"\nBram Tovik was born in Lundor Quay.'}


class Backend:
    corpus = Corpus("books", 2, "abc")
    settings: dict[str, Any] = {}
    max_batch, concurrency = 64, 1
    error: Exception | None = None

    def __init__(self) -> None:
        self.calls: list[int] = []

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if self.error:
            raise self.error
        self.calls.append(len(queries))
        hits = [Hit(Passage(**row), 2.0 - i) for i, row in enumerate(ROWS)]
        return [hits[:top_k] if query else [] for query in queries]

    def close(self) -> None:
        pass


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def client(backend: Backend) -> Any:
    gateway = Gateway(backend, GatewayOptions(deadline=0.2, cooldown=0.05, cache=0))
    return fastapi_client.TestClient(server.create_app(gateway, top_k=1), raise_server_exceptions=False)


def test_the_search_r1_protocol(client: Any) -> None:
    body = {"queries": ["novel", ""], "topk": 2, "return_scores": True}
    assert client.post("/retrieve", json=body).json() == {
        "result": [[{"document": NOVEL, "score": 2.0}, {"document": BORN, "score": 1.0}], []]
    }
    assert client.post("/retrieve", json={"queries": ["novel"]}).json() == {"result": [[NOVEL]]}
    assert client.post("/retrieve", json={"queries": ["x"], "topk": None, "more": 1}).json() == {"result": [[NOVEL]]}


def test_the_research_protocol(client: Any) -> None:
    assert client.post("/search", json={"query": "novel", "top_n": 2}).json() == [NOVEL, BORN]
    scored = {"query": "novel", "top_n": 2, "return_score": True}
    assert client.post("/search", json=scored).json() == [[NOVEL, BORN], [2.0, 1.0]]
    assert client.post("/batch_search", json={"query": ["a", ""], "top_n": 1}).json() == [[NOVEL], []]
    scored["query"] = ["a", "b"]  # type: ignore[assignment]
    assert client.post("/batch_search", json=scored).json() == [[[NOVEL, BORN]] * 2, [[2.0, 1.0]] * 2]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/retrieve", {"queries": ["x"] * 2_049}),
        ("/retrieve", {"queries": ["x" * 10_001]}),
        ("/retrieve", {"queries": "x"}),
        ("/retrieve", {"queries": ["x"], "topk": 101}),
        ("/retrieve", {"queries": ["x"], "topk": 0}),
        ("/search", {"query": ["x"]}),
        ("/batch_search", {}),
    ],
)
def test_requests_out_of_bounds_are_refused(client: Any, backend: Backend, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json=body).status_code == 422
    assert backend.calls == []


def test_bodies_out_of_bounds_are_not_read(client: Any) -> None:
    assert client.post("/retrieve", content=b" " * (9 << 20)).status_code == 413
    assert client.post("/retrieve", content=iter([b"{}"])).status_code == 411


@pytest.mark.parametrize("body", [b'{"queries": ["\\ud800"]}', b'{"queries": ["x"], "topk": NaN}', b"{", b"[]"])
def test_bodies_that_make_no_sense_are_refused_and_counted(client: Any, body: bytes) -> None:
    answer = client.post("/retrieve", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("body")
    assert 'retrieval_requests_total{path="/retrieve",status="422"}' in client.get("/metrics").text


def test_an_outage_is_no_empty_answer(client: Any, backend: Backend) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    backend.error = RetrievalUnavailable("nobody there")
    response = client.post("/retrieve", json={"queries": ["novel"]})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "nobody there" in response.json()["error"]
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "failing")


def test_a_lasting_failure_has_another_status(client: Any, backend: Backend) -> None:
    backend.error = RetrievalError("the index is gone")
    assert client.post("/search", json={"query": "novel"}).status_code == 502


def test_metrics(client: Any) -> None:
    client.post("/retrieve", json={"queries": ["a", "b"]})
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'retrieval_requests_total{path="/retrieve",status="200"} 1.0' in text
    assert 'retrieval_requests_total{path="other",status="404"} 1.0' in text
    assert "retrieval_queries 2.0" in text
    assert 'retrieval_seconds_count{path="/retrieve"} 1.0' in text


def test_a_token() -> None:
    app = server.create_app(Gateway(Backend()), token="s3cret")
    client = fastapi_client.TestClient(app)
    assert client.post("/retrieve", json={"queries": ["x"]}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/health").status_code == 200
    right = {"Authorization": "Bearer s3cret"}
    assert client.post("/retrieve", json={"queries": ["x"]}, headers=right).status_code == 200


# The whole way: a server in a process of its own, and the client.


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`(url, process)` of a server that answers."""
    file = folder / "books.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"RESEARCH_HOME": str(file.parent), "RESEARCH_RETRIEVAL_TOKEN": "s3cret"}
    process = subprocess.Popen(
        [sys.executable, "-m", "research_env", "serve", "--corpus", str(file), "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"serving books (2 passages) on http://127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}"
    until = threading.Event()
    for _ in range(100):
        try:
            httpx.get(f"{url}/health", trust_env=False)
            break
        except httpx.TransportError:
            until.wait(0.1)
    try:
        yield url, process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("served")) as (url, _):
        yield url


@pytest.mark.parametrize("protocol", ["search-r1", "research"])
def test_client_and_server(served: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEARCH_RETRIEVAL_TOKEN", "s3cret")
    retriever = open_retriever(served, protocol=protocol)
    assert (retriever.corpus.name, retriever.corpus.passages) == ("books", 2)
    found = retriever.search(["the novel Amber Kesh by Tovik", "", "born\ud800 \0", 'no "such'], 2)
    assert [[hit.passage.id for hit in hits] for hits in found] == [["p0", "p1"], [], ["p1"], []]
    assert found[0][0].passage == Passage(**ROWS[0])
    assert found[0][0].score > found[0][1].score > 0
    with ThreadPoolExecutor(16) as threads:
        every = list(threads.map(lambda i: retriever.search([f"novel {i}"], 1)[0][0].passage.id, range(200)))
    assert every == ["p0"] * 200


def test_the_wrong_token_is_named(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEARCH_RETRIEVAL_TOKEN", "wr0ng")
    with pytest.raises(RetrievalError, match="refuses the token; set RESEARCH_RETRIEVAL_TOKEN") as caught:
        open_retriever(served)
    assert "wr0ng" not in str(caught.value)


def test_a_port_that_is_taken(served: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    from research_env.__main__ import main

    (tmp_path / "c.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    port = served.rsplit(":", 1)[1]
    assert main(["serve", "--corpus", str(tmp_path / "c.jsonl"), "--port", port]) == 2
    assert f"--port {port}: Address already in use; give another port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_when_its_requests_are_answered(tmp_path: Path, number: signal.Signals) -> None:
    body = b'{"queries": ["novel"]}'
    head = (
        "POST /retrieve HTTP/1.1", "Host: x", "Content-Type: application/json", "Authorization: Bearer s3cret",
        f"Content-Length: {len(body)}", "", "",
    )  # fmt: skip
    with serving(tmp_path) as (url, process), socket.create_connection(("127.0.0.1", urlsplit(url).port)) as connection:
        connection.sendall("\r\n".join(head).encode() + body[:5])
        time.sleep(0.5)
        process.send_signal(number)
        time.sleep(0.5)
        connection.sendall(body[5:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.close()
        process.wait(30)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


# Servers of another make.


class Other(BaseHTTPRequestHandler):
    """Search-R1's own: nothing but /retrieve. What it says is up to each test."""

    says: tuple[int, str] = (200, "{}")
    pause = 0.0
    """Seconds between letters."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, text = self.says
        self.send_response(status if self.path == "/retrieve" else 404)
        self.end_headers()
        for letter in [text] if not self.pause else text:
            self.wfile.write(letter.encode())
            time.sleep(self.pause)

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

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
    assert retriever.search(["x"], 1) == [[Hit(Passage(**ROWS[0]), 0.5)]]
    Other.says = 200, json.dumps({"result": [[{**NOVEL, "id": 0}]]})
    assert retriever.search(["z"], 1)[0][0].passage.id == "0"
    Other.says = 200, json.dumps({"result": [[NOVEL]]})
    assert retriever.search(["y"], 1) == [[Hit(Passage(**ROWS[0]), 0.0)]]


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
