"""The server under clients that send too much, too slowly, or half: others are served all the while."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from research_env.retrieval.gateway.gateway import Gateway
from tests.research_env.retrieval.fake_backend import Backend, hold

server = pytest.importorskip("research_env.retrieval.remote.server")
guard = pytest.importorskip("research_env.retrieval.remote.guard")
connections = pytest.importorskip("research_env.retrieval.remote.connections")

HALF_A_HEAD = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-"
HEAD = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HALF_A_BODY = HEAD + b'Content-Length: 100\r\n\r\n{"queries": ['
PIPELINED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + HALF_A_HEAD
BODY = b'{"queries": ["a"]}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@contextmanager
def running(backend: Backend, **crowd: Any) -> Iterator[int]:
    """Port of a server in a thread."""
    made = server.make_server(server.create_app(Gateway(backend)), connections.Crowd(**crowd))
    with server.listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
        thread.start()
        while not made.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            made.should_exit = made.force_exit = True
            thread.join(10)


def ask(port: int, query: str) -> int:
    body = {"queries": [query], "topk": 1}
    # `verify=False` spares the time that it takes to read the certificates.
    with httpx.Client(trust_env=False, verify=False, timeout=10) as client:
        return client.post(f"http://127.0.0.1:{port}/retrieve", json=body).status_code


def connect(port: int, stack: ExitStack, data: bytes) -> socket.socket:
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    one.settimeout(10)
    one.sendall(data)
    return one


def until_closed(one: socket.socket) -> bytes:
    """All that still comes; a connection that is reset counts as closed."""
    parts = []
    try:
        while part := one.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def is_open(one: socket.socket) -> bool:
    """Of a socket that does not block: whether its end has not come yet."""
    try:
        while one.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    return False


@pytest.fixture
def files() -> Iterator[int]:
    """How many files this process may open, raised as far as it can be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections.room()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield soft if soft > 0 else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("half", "number"),
    [(b"", 300), (HALF_A_HEAD, 300), (HALF_A_BODY, 1_100), (PIPELINED, 300)],
    ids=["nothing", "head", "body", "second"],
)
def test_more_half_sent_requests_than_there_is_room_lock_nobody_out(half: bytes, number: int, files: int) -> None:
    number = min(number, files // 2 - 200)  # both ends are here
    with ExitStack() as stack, running(Backend(64), most=number - 50) as port:
        slow = [connect(port, stack, half) for _ in range(number)]
        start = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(lambda number: ask(port, f"q{number}"), range(50))) == {200}
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        assert time.monotonic() - start < 20
        until_closed(slow[0])  # the oldest has made room
        assert ask(port, "after") == 200
        slow[-1].setblocking(False)
        assert is_open(slow[-1]), "the newest need not go"


def test_a_busy_connection_makes_room_for_nobody() -> None:
    backend = Backend(64)
    busy, free = hold(backend)
    with ExitStack() as stack, running(backend, most=4) as port:
        first = connect(port, stack, WHOLE)
        assert busy.wait(10)
        for _ in range(20):
            connect(port, stack, HALF_A_HEAD)
        free.set()
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_where_all_are_busy_a_new_connection_is_refused() -> None:
    backend = Backend(64)
    busy, free = hold(backend)
    with ExitStack() as stack, running(backend, most=3) as port:
        first = [connect(port, stack, WHOLE) for _ in range(3)]
        assert busy.wait(10)
        while until_closed(connect(port, stack, b"")):
            pass
        free.set()
        assert [one.recv(1 << 16)[:12] for one in first] == [b"HTTP/1.1 200"] * 3
        assert ask(port, "b") == 200


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"", [b"408"]),
        (HALF_A_HEAD, [b"408"]),
        (HALF_A_BODY, [b"408"]),
        (PIPELINED, [b"200"]),
        (WHOLE, [b"200"]),
        (WHOLE + HALF_A_BODY, [b"200", b"408"]),
    ],
)
def test_who_sends_too_slowly_is_cut_off(sent: bytes, answers: list[bytes]) -> None:
    """A byte now and then does not help."""
    with ExitStack() as stack, running(Backend(), patience=0.6) as port:
        start = time.monotonic()
        one = connect(port, stack, sent)
        drip = threading.Thread(target=dripped, args=(one, 0.1, 100 if sent not in (b"", WHOLE) else 0))
        drip.start()
        said = until_closed(one)
        assert 0.5 < time.monotonic() - start < 5
        drip.join()
        assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == answers


def dripped(one: socket.socket, pause: float, count: int) -> None:
    try:
        for _ in range(count):
            time.sleep(pause)
            one.sendall(b"x")
    except OSError:
        pass


def test_who_sends_slowly_but_in_time_is_served() -> None:
    with ExitStack() as stack, running(Backend(), patience=3.0) as port:
        one = connect(port, stack, b"")
        for byte in range(0, len(WHOLE), 8):
            one.sendall(WHOLE[byte : byte + 8])
            time.sleep(0.02)
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        one.sendall(WHOLE)  # and the next request on the same connection
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_who_does_not_read_is_cut_off() -> None:
    body = json.dumps({"queries": [f"{number} " * 1_000 for number in range(300)], "topk": 5}).encode()
    with ExitStack() as stack, running(Backend(64), patience=0.6) as port:
        one = stack.enter_context(socket.socket())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.settimeout(10)
        one.connect(("127.0.0.1", port))
        one.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(4)
        told = until_closed(one)
        assert told.startswith(b"HTTP/1.1 200")
        length = int(told.split(b"content-length: ")[1].split(b"\r\n")[0])
        assert length > 4 << 20
        assert len(told) < length, "the rest of the answer was thrown away"


@pytest.mark.parametrize("head", [b"", b"Content-Length: 20\r\n"])
def test_a_body_is_measured_as_it_comes(head: bytes) -> None:
    """In chunks, and with a Content-Length beside them that says less."""
    backend = Backend()
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with ExitStack() as stack, running(backend) as port:
        one = connect(port, stack, HEAD + head + b'Transfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n')
        sender = threading.Thread(target=flood, args=(one, chunk))
        sender.start()
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 413")
        one.shutdown(socket.SHUT_RDWR)
        sender.join()
        assert ask(port, "a") == 200
    assert backend.calls == [["a"]]


def flood(one: socket.socket, chunk: bytes) -> None:
    try:
        for _ in range(10_000):
            one.sendall(chunk)
    except OSError:
        pass


def test_all_bodies_together_are_bounded_and_small_ones_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_MAX_BODIES", 1 << 20)
    large = HEAD + b"Content-Length: 400000\r\n\r\n" + b" " * 399_999
    with ExitStack() as stack, running(Backend(64)) as port:
        held = [connect(port, stack, large) for _ in range(2)]
        third = connect(port, stack, large)
        assert third.recv(1 << 16).startswith(b"HTTP/1.1 503")
        assert ask(port, "small") == 200
        for one in held:
            one.close()
        for _ in range(100):  # until the server has noticed that they are closed
            again = connect(port, stack, large + b"x")
            if (answer := again.recv(1 << 16)[:12]) != b"HTTP/1.1 503":
                break
            time.sleep(0.05)
        assert answer == b"HTTP/1.1 422"


@pytest.mark.parametrize("head", [b"", b"Content-Length: 18\r\n"])
def test_a_body_in_chunks_is_served(head: bytes) -> None:
    with ExitStack() as stack, running(Backend()) as port:
        one = connect(port, stack, HEAD + head + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (BODY[:5], BODY[5:]):
            one.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            time.sleep(0.1)
        one.sendall(b"0\r\n\r\n")
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_headers_without_end_are_refused() -> None:
    with ExitStack() as stack, running(Backend()) as port:
        one = connect(port, stack, HALF_A_HEAD)
        threading.Thread(target=flood, args=(one, b"x" * 1_024)).start()
        assert until_closed(one)[:12] in (b"HTTP/1.1 400", b"")  # what is sent on may reset the connection


def test_too_many_searches_are_told_to_come_again_and_health_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_SEARCHES", 4)
    backend = Backend(64)
    busy, free = hold(backend)
    with running(backend) as port, ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, port, f"q{number}") for number in range(4)]
        assert busy.wait(10)
        while (status := ask(port, "one more")) == 200:  # until all four have come
            time.sleep(0.05)
        assert status == 503
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        free.set()
        assert [one.result(10) for one in waiting] == [200] * 4
        assert ask(port, "afterwards") == 200


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fits"),
    [(1_024, 1 << 20, 4_352, 4_096), (1_024, 2_048, 2_048, 1_792), (100, 100, 100, 16), (-1, -1, None, 4_096)],
)
def test_the_limit_on_open_files_is_raised(
    soft: int, hard: int, wanted: int | None, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.__setitem__(slice(None), limits))
    assert connections.room() == fits
    assert now == [wanted or soft, hard]
