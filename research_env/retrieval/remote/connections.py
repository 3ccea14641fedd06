"""Connections of the server: who sends or reads too slowly is cut off, and takes nobody's place.

uvicorn has a time-out for idle connections alone. A client that sends half of a request would keep its connection for
ever, and a thousand of them would keep everybody else out.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 30.0
"""Seconds for a request to come whole, for an idle connection to be used again, and for a client to read on."""
MAX_CONNECTIONS = 4_096
_OTHER_FILES = 256
"""Files and connections that the rest of the process may need: an index, a cluster."""
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Crowd:
    """The connections of one server. Where there are too many, the one that has waited longest makes room."""

    most: int = MAX_CONNECTIONS
    patience: float = PATIENCE
    waiting: dict[Connection, None] = field(default_factory=dict)
    """Those without a whole request to be answered, longest first."""


class Connection(H11Protocol):
    """One connection of a crowd."""

    def __init__(self, crowd: Crowd, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = crowd
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        if len(self.connections) >= self._crowd.most:
            oldest = next(iter(self._crowd.waiting), None)
            (oldest.transport if oldest else transport).abort()
            if oldest:  # now, because `connection_lost` comes later, and more clients may connect before it
                self._crowd.waiting.pop(oldest)
                self.connections.discard(oldest)
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop()
        self._crowd.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request has come, or all of it."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer was sent; the next request may be here already, or half of it."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._stop()
        self._clock = self.loop.call_later(self._crowd.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._stop()
        self._watch()

    def _watch(self) -> None:
        """See whether a whole request is here. Each has one clock, which no further byte sets back."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            self._crowd.waiting.setdefault(self)
            if self._clock is None:
                self._clock = self.loop.call_later(self._crowd.patience, self._give_up)
        else:
            self._crowd.waiting.pop(self, None)
            if not self.flow.write_paused:
                self._stop()

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        if self.cycle is None or not self.cycle.response_started:
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def room() -> int:
    """How many connections this process can hold. Its limit on open files is raised as far as it may be.

    Without a file left to open, nobody could connect at all.
    """
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < wanted:  # -1 stands for no limit
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(hard, wanted), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if soft < 0 else max(16, min(MAX_CONNECTIONS, soft - _OTHER_FILES))
