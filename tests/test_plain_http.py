"""The worker's HTTP face against clients that are slow, large, many, or want more than to look."""

import asyncio
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from streams.config.config import Config
from streams.worker import http
from streams.worker.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, Answer, PlainServer
from tests.pipeline import HANGS_S

DEADLINE_S = 0.6
PAGES = {"/page": lambda: Answer(HTTPStatus.OK, "text/plain", b"x" * 10)}


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    server = PlainServer(PAGES, getattr(request, "param", DEADLINE_S), ["desk.internal"])
    address = await server.start("127.0.0.1", 0)
    yield int(address.rpartition(":")[2])
    await server.stop()


async def ask(port: int, text: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.read(), HANGS_S)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def test_a_page_is_served_with_headers_that_keep_browsers_out(port: int) -> None:
    answer = await ask(port, b"GET /page?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (status(answer), body) == (200, b"x" * 10)
    for header in ("nosniff", "default-src 'none'", "no-store", "Connection: close", "Content-Length: 10"):
        assert header.encode() in head
    assert (await ask(port, b"HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
async def test_nothing_can_be_changed(port: int, method: str) -> None:
    answer = await ask(port, f"{method} /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert status(answer) == 405
    assert b"Allow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 413),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET /page HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
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
        assert await asyncio.wait_for(reader.read(), HANGS_S) == b""
    except ConnectionResetError:
        pass
    finally:
        dripping.cancel()
        writer.close()
    assert time.monotonic() - begun > DEADLINE_S / 2


@pytest.mark.parametrize("port", [600.0], indirect=True, ids=str)
async def test_idle_clients_keep_nobody_out(port: int) -> None:
    """However many: the oldest make room. There are far fewer places than idle clients, and no deadline helps."""
    idle = []
    for number in range(4 * CONNECTIONS_MAX):
        idle.append(await asyncio.open_connection("127.0.0.1", port))
        if number % 64 == 0:
            assert status(await ask(port, b"GET /page HTTP/1.0\r\n\r\n")) == 200
    assert await asyncio.wait_for(idle[0][0].read(), HANGS_S) == b"", "the oldest made room"
    await _still_open(idle[-1])
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("port", [600.0], indirect=True, ids=str)
async def test_who_holds_most_makes_room_first(port: int) -> None:
    """Another address that waits, and has waited longest, is not the one to go."""
    patient = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    patient[1].write(b"GET /page HTTP/1.0\r\n")
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * CONNECTIONS_MAX)]
    assert await asyncio.wait_for(idle[0][0].read(), HANGS_S) == b""
    patient[1].write(b"\r\n")
    assert status(await asyncio.wait_for(patient[0].read(), HANGS_S)) == 200
    for _, writer in (patient, *idle):
        writer.close()


async def _still_open(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    reader, writer = connection
    writer.write(b"GET /page HTTP/1.0\r\n\r\n")
    assert status(await asyncio.wait_for(reader.read(), HANGS_S)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:6066",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.1.2.3",
        "[::1]:6066",
        "desk.internal:80",
    ],
)
async def test_our_names_are_answered(port: int, host: str) -> None:
    assert status(await ask(port, f"GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:6066", "10.0.0.1", "", "[",
        "desk.internal.evil.example", "evil.example#localhost", "localhost@evil.example", "2130706433", "0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_strangers_name_that_points_here_is_not(port: int, host: str, method: str) -> None:
    """DNS rebinding: the browser takes the answer for that of the stranger's page."""
    assert status(await ask(port, f"{method} /page HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 421


@pytest.mark.parametrize(("listens", "reached"), [("0.0.0.0", "127.0.0.1"), ("::1", "::1")])
async def test_the_address_that_was_reached_is_a_name(listens: str, reached: str) -> None:
    """A probe of Kubernetes asks by the address of the pod."""
    server = PlainServer(PAGES)
    address = await server.start(listens, 0)
    reader, writer = await asyncio.open_connection(reached, int(address.rpartition(":")[2]))
    writer.write(f"GET /page HTTP/1.1\r\nHost: {f'[{reached}]' if ':' in reached else reached}\r\n\r\n".encode())
    assert status(await asyncio.wait_for(reader.read(), HANGS_S)) == 200
    writer.close()
    await server.stop()


def test_everything_listens_on_loopback_unless_told_otherwise() -> None:
    assert Config().web.host == "127.0.0.1"
    assert http.DEADLINE_S <= 10
