"""The worker's HTTP face against clients that are slow, large, many, or want more than to look."""

import asyncio
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from streams.config.config import Config
from streams.worker import http
from streams.worker.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, Answer, PlainServer
from tests.pipeline import until

DEADLINE_S = 0.6
PAGES = {"/page": lambda: Answer(HTTPStatus.OK, "text/plain", b"x" * 10)}


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    server = PlainServer(PAGES, getattr(request, "param", DEADLINE_S))
    address = await server.start("127.0.0.1", 0)
    yield int(address.rpartition(":")[2])
    await server.stop()


async def ask(port: int, text: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.read(), 120)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def test_a_page_is_served_with_headers_that_keep_browsers_out(port: int) -> None:
    answer = await ask(port, b"GET /page?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (status(answer), body) == (200, b"x" * 10)
    for header in ("nosniff", "default-src 'none'", "no-store", "Connection: close", "Content-Length: 10"):
        assert header.encode() in head
    assert (await ask(port, b"HEAD /page HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
async def test_nothing_can_be_changed(port: int, method: str) -> None:
    answer = await ask(port, f"{method} /page HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert status(answer) == 405
    assert b"Allow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /page HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 413),
        (b"GET /page HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET /page HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
    ],
)
async def test_what_is_no_plain_question_is_refused(port: int, text: bytes, code: int) -> None:
    assert status(await ask(port, text)) == code


async def test_a_slow_client_is_cut_off_at_the_deadline(port: int) -> None:
    """Slowloris: a byte now and then, for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()

    async def drip() -> None:
        for byte in b"GET /page HTTP/1.1\r\n" + b"X: y\r\n" * 1_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    try:
        assert await asyncio.wait_for(reader.read(), 120) == b""
    except ConnectionResetError:
        pass
    finally:
        dripping.cancel()
        writer.close()
    assert time.monotonic() - begun > DEADLINE_S / 2


@pytest.mark.parametrize("port", [5.0], indirect=True, ids=str)
async def test_many_idle_clients_keep_nobody_out_for_longer_than_the_deadline(port: int) -> None:
    idle = []
    for _ in range(20):  # on a busy machine the first leave while the last are still coming
        idle += [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX + 20)]
        if (turned_away := await ask(port, b"GET /page HTTP/1.0\r\n\r\n")) == b"":
            break
    assert turned_away == b"", "turned away while so many are open"

    async def answered() -> bool:
        return b" 200 " in await ask(port, b"GET /page HTTP/1.0\r\n\r\n")

    await until(answered, "room")
    for _, writer in idle:
        writer.close()


def test_everything_listens_on_loopback_unless_told_otherwise() -> None:
    assert Config().web.host == "127.0.0.1"
    assert http.DEADLINE_S <= 10
