"""The smallest HTTP server that a worker needs: GET of a few fixed paths, one answer a connection, everything bounded.

h11 parses HTTP; connections are managed here, since common servers wait forever for a client that sends its headers
byte by byte. A connection is closed after DEADLINE_S, whatever it sends, and at most CONNECTIONS_MAX are open at once.
All pages are read-only, so there is no authentication: other methods and request bodies are refused.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import h11

DEADLINE_S = 5.0
HEAD_BYTES_MAX = 8_192
CONNECTIONS_MAX = 64
METHODS = (b"GET", b"HEAD")
HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Connection", "close"),
)


class Answer(NamedTuple):
    """content_type : of the body, which is sent as it is."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Answer]]


class PlainServer:
    """Serves `pages` by path. A page that raises closes the connection; the event loop logs the error."""

    def __init__(self, pages: Pages, deadline_s: float = DEADLINE_S) -> None:
        self._pages = pages
        self._deadline_s = deadline_s
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> str:
        """Returns the address it listens on. Raises OSError if it is taken."""
        self._server = await asyncio.start_server(self._connection, host, port, limit=HEAD_BYTES_MAX)
        name, number = self._server.sockets[0].getsockname()[:2]
        return f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(self._deadline_s):
                    writer.write(await self._answer(reader))
                    await writer.drain()
        except (TimeoutError, OSError):
            pass  # the client was too slow, or disconnected
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        try:
            while (request := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(HEAD_BYTES_MAX))
        except h11.RemoteProtocolError as error:
            return _encode(connection, _plain(HTTPStatus(error.error_status_hint)))
        if not isinstance(request, h11.Request):
            return b""  # disconnected without a request
        return _encode(connection, self._page(request), with_body=request.method != b"HEAD")

    def _page(self, request: h11.Request) -> Answer:
        if request.method not in METHODS:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        if any(_announces_body(name, value) for name, value in request.headers):
            return _plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        page = self._pages.get(request.target.decode("latin-1").partition("?")[0])
        return _plain(HTTPStatus.NOT_FOUND) if page is None else page()


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())


def _encode(connection: h11.Connection, answer: Answer, *, with_body: bool = True) -> bytes:
    headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body))), *HEADERS]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", b", ".join(METHODS).decode()))
    head = h11.Response(status_code=answer.status, reason=answer.status.phrase, headers=headers)
    body = h11.Data(data=answer.body if with_body else b"")
    return (connection.send(head) or b"") + (connection.send(body) or b"")
