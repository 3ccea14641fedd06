"""Any retriever behind the protocols that trainers speak: `python -m research_env serve`.

- Search-R1: `POST /retrieve {"queries": […], "topk": 3, "return_scores": true}` ->
  `{"result": [[{"document": {"id", "contents"}, "score"}]]}`; without scores a row is a list of documents. SkyRL-gym
  sends one `query` in place of the list.
- ReSearch: `POST /search {"query": "…", "top_n": 3, "return_score": false}` -> `[{"id", "contents"}]`, and
  `POST /batch_search` with a list of queries -> a list of such lists; with scores `[documents, scores]`.
- Ours: `GET /corpus` (what is searched), `GET /health` (200, or 503 while the backend fails), and `GET /metrics` for
  Prometheus.

Queries of many requests go to the backend together: see `Gateway`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval.gateway.border import query_text
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.remote.connections import PATIENCE, Connection, Crowd, room
from research_env.retrieval.remote.guard import Guard
from research_env.text import mended
from research_env.types import Hit

MAX_QUERIES = 16_384
MAX_TOP_K = 100
MAX_PASSAGES = 262_144  # of one answer, about 200 MB
_MAX_SEARCHES = 1_000  # requests that wait for the backend; further ones get status 503, and a trainer asks again

# Pydantic takes no string with half of a surrogate pair in it. One such query must not fail the others of its batch.
Query = Annotated[str, BeforeValidator(lambda given: query_text(given) if isinstance(given, str) else given)]
Queries = Annotated[
    list[Query],
    Field(max_length=MAX_QUERIES),
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")  # trainers send fields of their own


class Retrieve(_Body):
    """Search-R1's request."""

    queries: Queries = Field(validation_alias=AliasChoices("queries", "query"))
    topk: TopK | None = None
    return_scores: bool | None = None


class Search(_Body):
    """ReSearch's request for one query."""

    query: Query
    top_n: TopK | None = None
    return_score: bool | None = None


class BatchSearch(_Body):
    """ReSearch's request for many queries."""

    query: Queries
    top_n: TopK | None = None
    return_score: bool | None = None


def create_app(gateway: Gateway, *, top_k: int = 3, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        gateway: Searches the corpus.
        top_k: Passages where a request of Search-R1 does not say how many.
        token: Bearer token that every request but `/health` must carry; None asks for none.
    """
    # The guard drops the content type.
    app = FastAPI(title="ReSearch Gym retrieval", docs_url=None, redoc_url=None, strict_content_type=False)
    registry = CollectorRegistry()
    app.add_middleware(Guard, token=token, registry=registry)
    searches = 0

    async def find(queries: Sequence[str], passages: int) -> list[list[Hit]]:
        # Counted only here, where a request is whole: those that are still being sent take no room from a search.
        nonlocal searches
        if len(queries) * passages > MAX_PASSAGES:
            asked = f"{len(queries):,} queries of {passages} passages"
            raise HTTPException(422, f"body: {asked} are more than {MAX_PASSAGES:,} in all; send fewer at once")
        if searches >= _MAX_SEARCHES:
            raise RetrievalUnavailable(f"{searches:,} searches are waiting already; ask again later")
        searches += 1
        try:
            return await gateway.asearch(queries, passages)
        finally:
            searches -= 1

    for name, text in {
        "queries": "Queries asked", "cached": "Queries answered from the cache", "sent": "Queries sent to the backend",
        "joined": "Queries answered by another's call", "calls": "Backend calls", "retries": "Backend calls repeated",
        "failed": "Queries failed",
    }.items():  # fmt: skip
        gauge = Gauge(f"retrieval_{name}", text, registry=registry)
        gauge.set_function(lambda name=name: getattr(gateway.stats, name))  # type: ignore[misc]

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        # Without the input, which FastAPI would repeat: it may hold what JSON cannot, such as NaN.
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    @app.exception_handler(400)
    @app.exception_handler(404)
    @app.exception_handler(405)
    @app.exception_handler(413)
    @app.exception_handler(422)
    @app.exception_handler(503)
    async def unfit(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(ConfigurationError)
    @app.exception_handler(RetrievalError)
    async def failed(request: Request, error: Exception) -> Response:
        # An error and never an empty list: an empty list says that nothing was found, and a trainer would believe it.
        status = 503 if isinstance(error, RetrievalUnavailable) else 502
        return JSONResponse({"error": mended(str(error))}, status, {"Retry-After": "1"} if status == 503 else None)

    # Responses are made here, because FastAPI would walk through every value of an answer first.
    @app.post("/retrieve")
    async def retrieve(body: Retrieve) -> Response:
        found = await find(body.queries, body.topk or top_k)
        if body.return_scores:
            scored = [[{"document": _document(hit), "score": hit.score} for hit in hits] for hits in found]
            return JSONResponse({"result": scored})
        return JSONResponse({"result": [[_document(hit) for hit in hits] for hits in found]})

    @app.post("/search")
    async def search(body: Search) -> Response:
        [hits] = await find([body.query], body.top_n or 10)
        documents = [_document(hit) for hit in hits]
        return JSONResponse([documents, [hit.score for hit in hits]] if body.return_score else documents)

    @app.post("/batch_search")
    async def batch_search(body: BatchSearch) -> Response:
        found = await find(body.query, body.top_n or 10)
        documents = [[_document(hit) for hit in hits] for hits in found]
        return JSONResponse(
            [documents, [[h.score for h in hits] for hits in found]] if body.return_score else documents
        )

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


def make_server(app: FastAPI, crowd: Crowd) -> uvicorn.Server:
    """A server of the application, for `run(sockets=[listener])`."""
    # The connections count themselves: uvicorn's own limit counts idle and slow ones with those that are answered.
    config = uvicorn.Config(
        app,
        http=partial(Connection, crowd),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_level="warning",
        timeout_keep_alive=int(PATIENCE),
        timeout_graceful_shutdown=30,
    )
    return uvicorn.Server(config)


def serve(gateway: Gateway, listener: socket.socket, top_k: int, token: str | None) -> None:
    """Serve until SIGINT or SIGTERM; requests that are being answered are finished first."""
    app = create_app(gateway, top_k=top_k, token=token)
    make_server(app, Crowd(room())).run(sockets=[listener])
