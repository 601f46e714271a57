"""uvicorn with bounds on what a client may send and how long it may take over it: uvicorn itself waits for ever."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 5.0
HEAD_BYTES_MAX = 16_384
KEEP_ALIVE_S = 5
CONNECTIONS_MAX = 1_000


class BoundedProtocol(H11Protocol):
    """A connection whose request line and headers are not there after HEAD_S is cut, at any of its requests."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(HEAD_S, self._cut)

    def _cut(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def server(app: Any, host: str, port: int) -> uvicorn.Server:
    """Not started. It logs warnings only: an access log would hold client ids."""
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    return uvicorn.Server(settings)
