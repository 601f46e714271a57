"""The ASGI door: middleware that holds throttled clients to their limits, in front of any ASGI application.

It never reads a request body. WebSocket and lifespan messages pass through untouched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, MutableMapping
from typing import Any

from probewatch_door.decisions import Decisions
from probewatch_door.limits import Clients, Delay, Gate, Refuse, SharedCounter
from probewatch_door.pseudonym import PseudonymKey, pseudonyms

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ClientOf = Callable[[Scope], Clients]
ModelOf = Callable[[Scope], str | None]


class ProbewatchDoor:
    """Holds clients to the decisions about them.

    app : the application behind the door.
    decisions : the view of the topic.
    client_of : the client of a request: its pseudonym, several while keys rotate, None for no client.
        `from_header` makes one.
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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with self._gate.admit_shared(self._client_of(scope), self._model_of(scope)) as verdict:
            if isinstance(verdict, Refuse):
                await _refuse(send, verdict)
                return
            if isinstance(verdict, Delay):
                await asyncio.sleep(verdict.seconds)
            await self._app(scope, receive, send)


async def _refuse(send: Send, refusal: Refuse) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})


def from_header(name: str, keys: Iterable[PseudonymKey]) -> ClientOf:
    """A `client_of` for gateways whose authentication leaves the client's id in a request header.

    name : the header. Clients must not be able to set it.
    keys : one per pseudonym key in use, two while keys rotate.
    """
    wanted, known = name.lower().encode("latin-1"), tuple(keys)

    def client_of(scope: Scope) -> tuple[str, ...]:
        value = next((value for header, value in scope["headers"] if header.lower() == wanted), b"")
        return pseudonyms(value.decode("latin-1"), known) if value else ()

    return client_of
