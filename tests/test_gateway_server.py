"""The example gateway's server against clients that send slowly, without end, or not at all."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from examples.loan_gateway import app as gateway
from examples.loan_gateway import server as bounded
from tests.pipeline import HANGS_S

HEAD_S = 0.5


class NoModel:
    def decide(self, features: dict[str, object]) -> tuple[str, float]:
        return "accept", 1.0


class NoLog:
    connected = True
    waiting = dropped = failures = 0

    def write(self, client_id: str, record: bytes) -> None: ...


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(bounded, "HEAD_S", HEAD_S)
    monkeypatch.setattr(gateway, "BODY_S", HEAD_S)
    app: Starlette = gateway.build_app(NoModel(), NoLog(), {})  # type: ignore[arg-type]
    assert any(isinstance(route, Route) and route.path == "/v1/score" for route in app.routes)
    server = bounded.server(app, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn sets no event
        await asyncio.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Client-Id: a\r\n"


def talk(port: int, text: bytes, drip: bytes) -> tuple[bytes, float]:
    """As `until_closed`. A plain socket: what came before a reset stays readable; asyncio's streams throw it away."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANGS_S) as connection:
        begun = time.monotonic()
        connection.sendall(text)
        closed = threading.Event()

        def send() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in drip:
                    if closed.wait(0.03):
                        return
                    connection.sendall(bytes([byte]))

        sending = threading.Thread(target=send)
        sending.start()
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65_536):
                answer += block
        closed.set()
        sending.join()
        return answer, time.monotonic() - begun


async def until_closed(port: int, text: bytes, drip: bytes = b"") -> tuple[bytes, float]:
    """What came back until the server closed, and after how long. drip : sent byte by byte after `text`."""
    return await asyncio.to_thread(talk, port, text, drip)


async def test_a_request_is_answered(port: int) -> None:
    answer, _ = await until_closed(port, HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 200") and b"server:" not in answer.lower()


@pytest.mark.parametrize("before", [b"", HEAD + b"Content-Length: 2\r\n\r\n{}"], ids=["at once", "after a request"])
async def test_a_head_that_drips_is_cut(port: int, before: bytes) -> None:
    answer, seconds = await until_closed(port, before, HEAD + b"X: y\r\n" * 500)
    assert answer.count(b"HTTP/1.1") == (1 if before else 0)
    assert seconds > HEAD_S / 2


async def test_a_connection_that_says_nothing_is_cut(port: int) -> None:
    answer, seconds = await until_closed(port, b"")
    assert answer == b"" and seconds > HEAD_S / 2


async def test_a_body_that_drips_is_given_up(port: int) -> None:
    answer, _ = await until_closed(port, HEAD + b"Content-Length: 1000\r\n\r\n", b" " * 1_000)
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_body_without_end_is_refused_at_its_limit(port: int) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    answer, _ = await until_closed(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 64)
    assert b"expected at most 16384 bytes" in answer or answer == b""


async def test_a_head_without_end_is_refused(port: int) -> None:
    answer, _ = await until_closed(port, HEAD + b"X: " + b"a" * 4 * bounded.HEAD_BYTES_MAX)
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""
