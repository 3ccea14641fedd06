"""Any retriever behind the protocols that trainers speak: `python -m research_env serve`.

- Search-R1: `POST /retrieve {"queries": […], "topk": 3, "return_scores": true}` ->
  `{"result": [[{"document": {"id", "contents"}, "score"}]]}`; without scores a row is a list of documents.
- ReSearch: `POST /search {"query": "…", "top_n": 3, "return_score": false}` -> `[{"id", "contents"}]`, and
  `POST /batch_search` with a list of queries -> a list of such lists; with scores `[documents, scores]`.
- Ours: `GET /corpus` (what is searched), `GET /health` (200, or 503 while the backend fails), and `GET /metrics` for
  Prometheus.

Queries of many requests go to the backend together: see `Gateway`.
"""

from __future__ import annotations

import hmac
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval.gateway.gateway import Gateway
from research_env.types import Hit

MAX_QUERIES = 2_048
MAX_TOP_K = 100
MAX_BODY = 8 << 20  # bytes
_MAX_REQUESTS = 1_000  # at once; further ones get status 503, and a trainer asks again
_SEARCHES = {"/retrieve", "/search", "/batch_search"}
_PATHS = {*_SEARCHES, "/corpus", "/health", "/metrics"}

Query = Annotated[str, Field(max_length=10_000)]
Queries = Annotated[list[Query], Field(max_length=MAX_QUERIES)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")  # trainers send fields of their own


class Retrieve(_Body):
    """Search-R1's request."""

    queries: Queries
    topk: TopK | None = None
    return_scores: bool = False


class Search(_Body):
    """ReSearch's request for one query."""

    query: Query
    top_n: TopK = 10
    return_score: bool = False


class BatchSearch(_Body):
    """ReSearch's request for many queries."""

    query: Queries
    top_n: TopK = 10
    return_score: bool = False


def create_app(gateway: Gateway, *, top_k: int = 3, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        gateway: Searches the corpus.
        top_k: Passages where a request of Search-R1 does not say how many.
        token: Bearer token that every request but `/health` must carry; None asks for none.
    """
    app = FastAPI(title="ReSearch Gym retrieval", docs_url=None, redoc_url=None)
    registry = CollectorRegistry()
    requests = Counter("retrieval_requests", "Requests", ["path", "status"], registry=registry)
    seconds = Histogram("retrieval_seconds", "Seconds of a search request", ["path"], registry=registry)
    for name, text in {
        "queries": "Queries asked", "cached": "Queries answered from the cache", "sent": "Queries sent to the backend",
        "joined": "Queries answered by another's call", "calls": "Backend calls", "retries": "Backend calls repeated",
        "failed": "Queries failed",
    }.items():  # fmt: skip
        gauge = Gauge(f"retrieval_{name}", text, registry=registry)
        gauge.set_function(lambda name=name: getattr(gateway.stats, name))  # type: ignore[misc]

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        start = time.perf_counter()
        known = path if path in _PATHS else "other"
        status = 500
        try:
            response = await _refusal(request, token) or await call_next(request)
            status = response.status_code
        finally:
            requests.labels(known, status).inc()
            if known in _SEARCHES:
                seconds.labels(known).observe(time.perf_counter() - start)
        return response

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        # Without the input, which FastAPI would repeat: it may hold what JSON cannot, such as NaN.
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    @app.exception_handler(ConfigurationError)
    @app.exception_handler(RetrievalError)
    async def failed(request: Request, error: Exception) -> Response:
        # An error and never an empty list: an empty list says that nothing was found, and a trainer would believe it.
        status = 503 if isinstance(error, RetrievalUnavailable) else 502
        return JSONResponse({"error": str(error)}, status, {"Retry-After": "1"} if status == 503 else None)

    @app.post("/retrieve")
    async def retrieve(body: Retrieve) -> Any:
        found = await gateway.asearch(body.queries, body.topk or top_k)
        if body.return_scores:
            return {"result": [[{"document": _document(hit), "score": hit.score} for hit in hits] for hits in found]}
        return {"result": [[_document(hit) for hit in hits] for hits in found]}

    @app.post("/search")
    async def search(body: Search) -> Any:
        [hits] = await gateway.asearch([body.query], body.top_n)
        documents = [_document(hit) for hit in hits]
        return [documents, [hit.score for hit in hits]] if body.return_score else documents

    @app.post("/batch_search")
    async def batch_search(body: BatchSearch) -> Any:
        found = await gateway.asearch(body.query, body.top_n)
        documents = [[_document(hit) for hit in hits] for hits in found]
        return [documents, [[hit.score for hit in hits] for hits in found]] if body.return_score else documents

    @app.get("/corpus")
    async def corpus() -> Any:
        return {**asdict(gateway.corpus), "settings": dict(gateway.settings)}

    @app.get("/health")
    async def health() -> Response:
        broken = gateway.trouble()
        return JSONResponse(
            {"status": "failing", "error": broken} if broken else {"status": "ok"}, 503 if broken else 200
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return app


async def _refusal(request: Request, token: str | None) -> Response | None:
    """The answer to a request that is not let in; None for one that is."""
    if token and request.url.path != "/health":
        given = request.headers.get("authorization", "")
        # In constant time: `==` would tell by its duration how much of the token was right.
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
    # By the header alone, before the body is read: a body that is too large must not fill the memory first.
    size = request.headers.get("content-length", "")
    if request.method == "POST" and not (size.isdecimal() and int(size) <= MAX_BODY):
        status = 413 if size.isdecimal() else 411
        return JSONResponse({"error": f"send a Content-Length of at most {MAX_BODY:,} bytes"}, status)
    return None


def _document(hit: Hit) -> dict[str, str]:
    return {"id": hit.passage.id, "contents": contents(hit.passage)}


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on.

    Raises:
        RetrievalError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RetrievalError(f"--host {host} --port {port}: {error.strerror}; give another port") from None
    return listener


def serve(gateway: Gateway, listener: socket.socket, top_k: int, token: str | None) -> None:
    """Serve until SIGINT or SIGTERM; requests that are being answered are finished first."""
    config = uvicorn.Config(
        create_app(gateway, top_k=top_k, token=token),
        log_level="warning",
        timeout_graceful_shutdown=30,
        limit_concurrency=_MAX_REQUESTS,
    )
    uvicorn.Server(config).run(sockets=[listener])
