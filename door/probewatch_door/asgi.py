"""The ASGI door: middleware that holds throttled clients to their limits, in front of any ASGI application.

It never reads a request body. A WebSocket's handshake is a request like any other; lifespan messages pass through.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, MutableMapping
from typing import Any

from probewatch_door.decisions import Decisions
from probewatch_door.limits import Clients, Delay, Gate, Refuse, SharedCounter, refuse_unclear
from probewatch_door.pseudonym import PseudonymKey, RepeatedHeaderError, header_pseudonyms

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ClientOf = Callable[[Scope], Clients]
ModelOf = Callable[[Scope], str | None]

DENIAL = "websocket.http.response"
"""The ASGI extension by which a handshake is refused with an HTTP response. Without it servers answer 403."""

POLICY_VIOLATION = 1008
"""RFC 6455, section 7.4.1."""


class ProbewatchDoor:
    """Holds clients to the decisions about them.

    app : the application behind the door.
    decisions : the view of the topic.
    client_of : the client of a request: its pseudonym, several while keys rotate, None for no client.
        `from_header` makes one. A request for which it raises RepeatedHeaderError is answered 400.
    model : the model behind the application, or a function of the scope; None obeys decisions about any model.
    allowlist : pseudonyms that are always let through.
    block_status : 429 or 403, for clients under `block`. Raises ValueError for any other.
    shared : counts requests under a cap for several processes, as `probewatch_door.shared.LimitsCounter` does;
        None counts in this process.

    Example:

        app.add_middleware(ProbewatchDoor, decisions=decisions, client_of=from_header("x-client-id", keys))
    """

    def __init__(
        self,
        app: App,
        decisions: Decisions,
        client_of: ClientOf,
        model: str | ModelOf | None = None,
        *,
        allowlist: Container[str] = frozenset(),
        block_status: int = 429,
        shared: SharedCounter | None = None,
    ) -> None:
        self._app = app
        self._client_of = client_of
        self._model_of = model if callable(model) else lambda _: model
        self._gate = Gate(decisions, allowlist=allowlist, block_status=block_status, shared=shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            clients = self._client_of(scope)
        except RepeatedHeaderError:
            await _refuse(scope, receive, send, refuse_unclear())
            return
        async with self._gate.admit_shared(clients, self._model_of(scope)) as verdict:
            if isinstance(verdict, Refuse):
                await _refuse(scope, receive, send, verdict)
                return
            if isinstance(verdict, Delay):
                await asyncio.sleep(verdict.seconds)
            await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refuse) -> None:
    kind = "http"
    if scope["type"] == "websocket":
        await receive()  # the handshake, which may be answered only then
        if DENIAL not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        kind = "websocket.http"
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": refusal.body})


def from_header(name: str, keys: Iterable[PseudonymKey]) -> ClientOf:
    """A `client_of` for gateways whose authentication leaves the client's id in a request header.

    name : the header. Clients must not be able to set it. A request that carries it twice is refused.
    keys : one per pseudonym key in use, two while keys rotate.
    """
    wanted, known = name.lower().encode("latin-1"), tuple(keys)

    def client_of(scope: Scope) -> tuple[str, ...]:
        return header_pseudonyms([value for header, value in scope["headers"] if header.lower() == wanted], known)

    return client_of
