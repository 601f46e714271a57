"""The smallest HTTP server that a worker needs: GET of a few fixed paths, one answer a connection, everything bounded.

h11 parses HTTP; connections are managed here, since common servers wait forever for a client that sends its headers
byte by byte. A connection is closed after DEADLINE_S, whatever it sends. At most CONNECTIONS_MAX are open at once: one
more closes the oldest of the address that holds most, so idle connections keep nobody out.
All pages are read-only, so there is no authentication: other methods and request bodies are refused. So are names that
are not ours: a page of a stranger whose name now points here (DNS rebinding) would be let in by the browser.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

DEADLINE_S = 5.0
HEAD_BYTES_MAX = 8_192
CONNECTIONS_MAX = 256
BACKLOG = 64
"""Connections that one turn of the event loop accepts, far fewer than may be open: each is read before it is closed."""

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
    """Serves `pages` by path. A page that raises closes the connection; the event loop logs the error.

    names : by which it may be asked, besides `localhost`, loopback addresses, the address that it listens on and the
        one that a connection reached.
    """

    def __init__(self, pages: Pages, deadline_s: float = DEADLINE_S, names: Iterable[str] = ()) -> None:
        self._pages = pages
        self._deadline_s = deadline_s
        self._names = {"localhost", *map(_canonical, names)}
        self._open: dict[str, dict[asyncio.WriteTransport, None]] = {}
        self._count = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> str:
        """Returns the address it listens on. Raises OSError if it is taken."""
        self._names.add(_canonical(host))
        self._server = await asyncio.start_server(self._connection, host, port, limit=HEAD_BYTES_MAX, backlog=BACKLOG)
        name, number = self._server.sockets[0].getsockname()[:2]
        return f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = (writer.get_extra_info("peername") or ("",))[0]
        self._enter(peer, writer.transport)
        try:
            async with asyncio.timeout(self._deadline_s):
                writer.write(await self._answer(reader, writer.get_extra_info("sockname")[0]))
                await writer.drain()
        except (TimeoutError, OSError):
            pass  # the client was too slow, or disconnected, or made room
        finally:
            self._leave(peer, writer.transport)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _enter(self, peer: str, transport: asyncio.WriteTransport) -> None:
        self._open.setdefault(peer, {})[transport] = None
        self._count += 1
        if self._count > CONNECTIONS_MAX:
            most = max(self._open, key=lambda address: len(self._open[address]))
            oldest = next(iter(self._open[most]))
            self._leave(most, oldest)
            oldest.abort()

    def _leave(self, peer: str, transport: asyncio.WriteTransport) -> None:
        """Without effect for one that has left."""
        own = self._open.get(peer, {})
        if transport in own:
            del own[transport]
            self._count -= 1
            if not own:
                del self._open[peer]

    async def _answer(self, reader: asyncio.StreamReader, reached: str) -> bytes:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        try:
            while (request := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(HEAD_BYTES_MAX))
        except h11.RemoteProtocolError as error:
            return _encode(connection, _plain(HTTPStatus(error.error_status_hint)))
        if not isinstance(request, h11.Request):
            return b""  # disconnected without a request
        return _encode(connection, self._page(request, reached), with_body=request.method != b"HEAD")

    def _page(self, request: h11.Request, reached: str) -> Answer:
        if not self._is_ours(request, reached):
            return _plain(HTTPStatus.MISDIRECTED_REQUEST)
        if request.method not in METHODS:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        if any(_announces_body(name, value) for name, value in request.headers):
            return _plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        page = self._pages.get(request.target.decode("latin-1").partition("?")[0])
        return _plain(HTTPStatus.NOT_FOUND) if page is None else page()

    def _is_ours(self, request: h11.Request, reached: str) -> bool:
        """h11 lets no request of HTTP/1.1 through without its one Host, and browsers send no other."""
        host = next((value for name, value in request.headers if name == b"host"), None)
        if host is None:
            return True
        name = _canonical(_without_port(host.decode("latin-1")))
        return name in self._names or name == _canonical(reached) or _is_loopback(name)


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _canonical(name: str) -> str:
    """One spelling for each address and name. An IPv4 address that came in by IPv6 is the same one."""
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name.lower().rstrip(".")
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


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
