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
JSON = {"Content-Type": "application/json"}
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
        self.asked: list[str] = []

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if self.error:
            raise self.error
        self.calls.append(len(queries))
        self.asked += queries
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
    ("path", "body", "said"),
    [
        ("/retrieve", {"queries": ["x"] * 16_385}, "body.queries: List should have at most 16384 items"),
        ("/retrieve", {"queries": ["x"] * 2_700, "topk": 100}, "body: 2,700 queries of 100 passages are more than"),
        ("/batch_search", {"query": ["x"] * 16_384, "top_n": 17}, "body: 16,384 queries of 17 passages are more than"),
        ("/retrieve", {"queries": {"0": "x"}}, "body.queries: Input should be a valid list"),
        ("/retrieve", {"queries": None}, "body.queries: Input should be a valid list"),
        ("/retrieve", {"queries": ["x", 7, None]}, "body.queries.1: Input should be a valid string"),
        ("/retrieve", {"queries": ["x", ["y"]]}, "body.queries.1: Input should be a valid string"),
        ("/retrieve", {"queries": ["x"], "topk": 101}, "body.topk: Input should be less than or equal to 100"),
        ("/retrieve", {"queries": ["x"], "topk": 0}, "body.topk: Input should be greater than or equal to 1"),
        ("/retrieve", {"queries": ["x"], "topk": "all"}, "body.topk: Input should be a valid integer"),
        (
            "/retrieve",
            {"queries": ["x"], "return_scores": "\ud800"},
            "body.return_scores: Input should be a valid",
        ),
        ("/search", {"query": ["x"]}, "body.query: Input should be a valid string"),
        ("/batch_search", {}, "body.query: Field required"),
    ],
)
def test_requests_out_of_bounds_are_refused(
    client: Any, backend: Backend, path: str, body: dict[str, Any], said: str
) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)
    assert backend.calls == []


def test_search_r1s_own_batches_are_served(backend: Backend) -> None:
    """Its scripts ask with 512 prompts of 5 rollouts each; one bad query does not fail the others."""
    client = fastapi_client.TestClient(server.create_app(Gateway(backend, GatewayOptions(cache=0)), top_k=1))
    long, half = "x" * 10_001, "born \ud800"
    queries = [f"novel {i}" for i in range(2_556)] + ["", "novel 0", long, half]
    answer = client.post("/retrieve", content=json.dumps({"queries": queries}), headers=JSON)
    assert answer.json() == {"result": [[NOVEL]] * 2_556 + [[], [NOVEL], [NOVEL], [NOVEL]]}
    assert backend.asked == [*queries[:2_557], "x" * 10_000, "born �"], "each query once, cut and in Unicode"
    assert client.post("/retrieve", json={"queries": []}).json() == {"result": []}
    assert client.post("/batch_search", json={"query": []}).json() == []


@pytest.mark.parametrize("name", ["query", "queries"])
def test_one_query_in_place_of_many(client: Any, name: str) -> None:
    """SkyRL-gym 0.4.0, `skyrl_gym/tools/search.py`: it reads a list of lists all the same."""
    answer = client.post("/retrieve", json={name: "novel", "topk": 1, "return_scores": True})
    assert answer.json() == {"result": [[{"document": NOVEL, "score": 2.0}]]}


def test_null_stands_for_what_is_not_said(client: Any) -> None:
    assert client.post("/retrieve", json={"queries": ["x"], "topk": None, "return_scores": None}).json() == {
        "result": [[NOVEL]]
    }
    assert client.post("/search", json={"query": "x", "top_n": None, "return_score": None}).json() == [NOVEL, BORN]
    assert client.post("/batch_search", json={"query": ["x"], "top_n": None}).json() == [[NOVEL, BORN]]


def test_a_body_that_says_it_is_too_large_is_not_read(client: Any, backend: Backend) -> None:
    answer = client.post("/retrieve", content=b" " * (9 << 20), headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("a body may have at most 8,388,608 bytes")
    assert client.post("/nowhere").json() == {"error": "Not Found"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"queries": ["x"], "topk": NaN}', 422),
        (b'{"queries": ["x"], "topk": 1e999}', 422),
        (b'{"queries": [NaN]}', 422),
        (b"{", 422),
        (b"[]", 422),
        (b"", 422),
        (b'{"queries": ["\xff"]}', 400),
        (b"[" * 100_000, 400),
        (b'{"queries": ["x"], "topk": ' + b"1" * 5_000 + b"}", 400),
    ],
)
def test_bodies_that_make_no_sense_are_refused_and_counted(client: Any, body: bytes, status: int) -> None:
    answer = client.post("/retrieve", content=body, headers=JSON)
    assert answer.status_code == status
    assert "body" in answer.json()["error"]
    assert f'retrieval_requests_total{{path="/retrieve",status="{status}"}}' in client.get("/metrics").text


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


def test_an_error_that_nobody_expects_is_named(client: Any, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    backend.error = KeyError("shard 7")
    response = client.post("/retrieve", json={"queries": ["novel", "born"]})
    assert response.status_code == 502
    assert response.json() == {"error": "books: the retriever failed (KeyError: 'shard 7')"}
    assert caplog.text == ""


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


def test_curl_without_a_content_type_is_served(client: Any) -> None:
    """`curl -d` says that what it sends is a form."""
    body = '{"queries": ["q"], "topk": 1}'
    answer = client.post("/retrieve", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200
    assert len(answer.json()["result"]) == 1
