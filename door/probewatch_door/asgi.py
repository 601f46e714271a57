"""The ASGI door: middleware that holds throttled clients to their limits, in front of any ASGI application.

It never reads a request body, and never says why a client is held: only that, for how long, and where to appeal.
"""

import asyncio
import math
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Container, Iterable, MutableMapping
from typing import Any

import msgspec
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from prometheus_client import Counter

from probewatch_door.decisions import Decisions
from probewatch_door.pseudonym import PseudonymKey, pseudonyms
from probewatch_door.record import Throttle

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ClientOf = Callable[[Scope], str | tuple[str, ...] | None]
ModelOf = Callable[[Scope], str | None]

PROBLEM_TYPE = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
POLICY = "abnormal-usage"
DELAY_MAX_MS = 60_000

ANSWERS = Counter("probewatch_door_requests", "HTTP requests at the ASGI door, by what became of them", ["answer"])


class Refusal(msgspec.Struct, frozen=True):
    """Come back after `wait_s`. policy, state : parameters of RateLimit-Policy and RateLimit (Structured Fields)."""

    wait_s: int
    policy: str
    state: str


class ProbewatchDoor:
    """Holds clients to the decisions about them.

    client_of : the request's client as it stands in decisions: its pseudonym, or several while keys rotate; None for
    nobody. `from_header` makes one. model : the model behind this application, or a function of the scope; None
    obeys decisions about any model. allowlist : pseudonyms that are always let through. block_status : 429 or 403.
    storage : where requests are counted, `limits` storage with moving windows; memory counts per process.
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
        storage: Storage | None = None,
    ) -> None:
        if block_status not in (403, 429):
            raise ValueError(f"block_status: expected 403 or 429; got {block_status}")
        self._app = app
        self._decisions = decisions
        self._client_of = client_of
        self._model_of = model if callable(model) else lambda _: model
        self._allowlist = allowlist
        self._block_status = block_status
        self._limiter = MovingWindowRateLimiter(storage or MemoryStorage())
        self._running: Tally[str] = Tally()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        decision = self._decision(scope) if scope["type"] == "http" else None
        if decision is None:
            if scope["type"] == "http":
                ANSWERS.labels("passed").inc()
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(decision)
        if refusal is not None:
            ANSWERS.labels("refused").inc()
            await _refuse(send, self._status(decision), decision, refusal)
            return
        ANSWERS.labels("limited").inc()
        self._running[decision.client] += 1
        try:
            await asyncio.sleep(min(decision.limits.delay_ms or 0, DELAY_MAX_MS) / 1000)
            await self._app(scope, receive, send)
        finally:
            self._running[decision.client] -= 1
            self._running += Tally()  # drops those at zero

    def _decision(self, scope: Scope) -> Throttle | None:
        found = self._client_of(scope)
        clients = (found,) if isinstance(found, str) else found or ()
        if not clients or any(client in self._allowlist for client in clients):
            return None
        return self._decisions.strictest(clients, self._model_of(scope))

    def _status(self, decision: Throttle) -> int:
        return self._block_status if decision.action == "block" else 429

    async def _refusal(self, decision: Throttle) -> Refusal | None:
        limits, now_s = decision.limits, time.time()
        left_s = max(1, math.ceil(decision.expires_at.timestamp() - now_s))
        # A challenge needs a page of the gateway's own; without one the client waits.
        if decision.action in ("block", "challenge") or limits.requests_per_minute == 0:
            return Refusal(left_s, "q=0", f"r=0;t={left_s}")
        if limits.max_concurrency is not None and self._running[decision.client] >= limits.max_concurrency:
            return Refusal(1, f'q={limits.max_concurrency};qu="concurrent-requests"', "r=0;t=1")
        if limits.requests_per_minute is not None:
            return await self._over_rate(decision, limits.requests_per_minute, left_s)
        return None

    async def _over_rate(self, decision: Throttle, rate: int, left_s: int) -> Refusal | None:
        item, name = RateLimitItemPerMinute(rate), (decision.client, decision.model)
        try:
            if await self._limiter.hit(item, *name):
                return None
            window = await self._limiter.get_window_stats(item, *name)
        except StorageError:
            return None  # a counter out of reach must not close the door
        wait_s = min(left_s, max(1, math.ceil(window.reset_time - time.time())))
        return Refusal(wait_s, f"q={rate};w=60", f"r=0;t={wait_s}")


async def _refuse(send: Send, status: int, decision: Throttle, refusal: Refusal) -> None:
    body = msgspec.json.encode(
        {
            "type": PROBLEM_TYPE,
            "title": "Abnormal usage detected",
            "status": status,
            "detail": "Requests of this client are limited for a time. Quote the instance when you appeal.",
            "instance": f"urn:decision:{decision.decision_id}",
            "violated-policies": [POLICY],
        }
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"retry-after", str(refusal.wait_s).encode()),
        (b"ratelimit-policy", f'"{POLICY}";{refusal.policy}'.encode()),
        (b"ratelimit", f'"{POLICY}";{refusal.state}'.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
