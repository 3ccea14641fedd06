"""What stands before the application: a request needs the token and a body that is not too large; all are counted."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException
from fastapi.datastructures import Headers
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application, of a scope."""

MAX_BODY = 8 << 20  # bytes
_MAX_BODIES = 1 << 30
"""Bytes of all bodies that are held at once. A body of at most `_SMALL` bytes is let in all the same: one for each of
4,096 connections takes a quarter of it."""
_SMALL = 64 << 10
_TOO_LARGE = f"a body may have at most {MAX_BODY:,} bytes; send fewer queries at once"
SEARCHES = {"/retrieve", "/search", "/batch_search"}
_PATHS = {*SEARCHES, "/corpus", "/health", "/metrics"}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: App, token: str | None, registry: CollectorRegistry) -> None:
        """Keep the token, which every request but `/health` must carry (None: none needed), and make the metrics."""
        self._app, self._token = app, token
        self._held = 0
        self._requests = Counter("retrieval_requests", "Requests", ["path", "status"], registry=registry)
        self._seconds = Histogram("retrieval_seconds", "Seconds of a search request", ["path"], registry=registry)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        path = scope["path"]
        known = path if path in _PATHS else "other"
        start, status, size = time.perf_counter(), 500, 0
        refusal = self._refusal(path, Headers(scope=scope))
        if known in SEARCHES:
            # JSON is all that is read there, whatever the client calls it: `curl -d` says that it sends a form.
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"content-type"]}

        async def counted() -> Message:
            # As the bytes come: what Content-Length says is not what follows when the body is sent in chunks.
            nonlocal size
            message = await receive()
            came = len(message.get("body", b""))
            size += came
            self._held += came
            if size > MAX_BODY:
                raise HTTPException(413, _TOO_LARGE)
            if size > _SMALL and self._held > _MAX_BODIES:
                raise HTTPException(503, "too many large bodies at once; ask again later", {"Retry-After": "1"})
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await (refusal or self._app)(scope, counted, noted)
        finally:
            self._held -= size
            self._requests.labels(known, status).inc()
            if known in SEARCHES:
                self._seconds.labels(known).observe(time.perf_counter() - start)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        """The answer to a request that is not let in; None for one that is."""
        if self._token and path != "/health":
            given = headers.get("authorization", "")
            # In constant time: `==` would tell by its duration how much of the token was right.
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                return JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        size = headers.get("content-length", "")
        # Before anything is read, so that the client is told at once.
        return JSONResponse({"error": _TOO_LARGE}, 413) if size.isdecimal() and int(size) > MAX_BODY else None
