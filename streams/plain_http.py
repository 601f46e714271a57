"""The smallest HTTP server that a worker needs: GET of a few fixed paths, one answer a connection, everything bounded.

Written out because common servers wait for ever for a client that sends its headers byte by byte. Here a connection has
DEADLINE_S from its first moment to its last, whatever it sends, and CONNECTIONS_MAX at once; more are turned away.
Nothing here changes anything, so nobody is asked who they are: any other method is refused, and so is a body.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

DEADLINE_S = 5.0
HEAD_BYTES_MAX = 8_192
CONNECTIONS_MAX = 64
METHODS = ("GET", "HEAD")
HEADERS = (
    "Cache-Control: no-store",
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options: nosniff",
    "Connection: close",
)


class Answer(NamedTuple):
    """content_type : of the body, which is sent as it is."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Answer]]


class PlainServer:
    """Serves `pages` by path. A page that raises closes the connection; the event loop tells of it."""

    def __init__(self, pages: Pages, deadline_s: float = DEADLINE_S) -> None:
        self._pages = pages
        self._deadline_s = deadline_s
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> str:
        """The address as it came to be. Raises OSError if it is taken."""
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
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # it was too slow, or it has gone
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _encode(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        first, *fields = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _encode(_plain(HTTPStatus.BAD_REQUEST))
        method, target, _ = words
        if method not in METHODS:
            return _encode(_plain(HTTPStatus.METHOD_NOT_ALLOWED), f"Allow: {', '.join(METHODS)}")
        if any(_announces_body(field) for field in fields):
            return _encode(_plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
        page = self._pages.get(target.partition("?")[0])
        answer = _plain(HTTPStatus.NOT_FOUND) if page is None else page()
        return _encode(answer, with_body=method != "HEAD")


def _announces_body(field: str) -> bool:
    name, _, value = field.partition(":")
    return name.strip().lower() == "transfer-encoding" or (
        name.strip().lower() == "content-length" and value.strip() != "0"
    )


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())


def _encode(answer: Answer, *more: str, with_body: bool = True) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *HEADERS,
        *more,
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (answer.body if with_body else b"")
