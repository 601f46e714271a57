"""What a door does with a request: allow it, delay it, or refuse it. Every door is a thin layer over `Gate`.

A refusal says for how long and where to appeal. It never names the detector, the evidence or the threshold.
"""

import contextlib
import math
import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Hashable, Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec
from prometheus_client import Counter

from probewatch_door.decisions import Decisions
from probewatch_door.record import Throttle

PROBLEM_TYPE = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
POLICY = "abnormal-usage"
DELAY_MAX_MS = 60_000
WINDOW_S = 60.0
PURGE_EVERY = 10_000

ANSWERS = Counter("probewatch_door_requests", "Requests at the door, by answer: passed, limited, refused.", ["answer"])

Clients = str | Iterable[str] | None
"""The names of one client: its pseudonym, several while keys rotate, None for no client."""


class Allow(NamedTuple):
    """Pass the request on. decision : None, or the decision that leaves room for this request."""

    decision: Throttle | None = None


class Delay(NamedTuple):
    """Wait `seconds`, then pass the request on."""

    decision: Throttle
    seconds: float


class Refuse(NamedTuple):
    """Answer with this status, these headers and this body (problem+json, RFC 9457), and read no request body.

    decision : the one that asks for it; None where the request does not say whose it is.
    """

    decision: Throttle | None
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Verdict = Allow | Delay | Refuse


def refuse_unclear() -> Refuse:
    """For a request that names several clients (`pseudonym.RepeatedHeaderError`): 400, without a word."""
    ANSWERS.labels("refused").inc()
    return Refuse(None, 400, (("content-length", "0"), ("cache-control", "no-store")), b"")


class SharedCounter(Protocol):
    """Counts requests for several processes: `probewatch_door.shared` has one over Redis."""

    async def hit(self, key: tuple[str, ...], rate: int) -> float | None:
        """Count a request. None: it is within `rate` a minute; otherwise seconds until the next one is.

        Must return None where the counter is unreachable: a door fails open.
        """


class Gate:
    """Decides about each request of one application. Threads may share it.

    decisions : the view of the topic.
    allowlist : pseudonyms that are always let through.
    block_status : 429 or 403, the status for clients under `block`. Raises ValueError for any other.
    shared : counts requests under a cap for several processes; None counts in this process. Only for `admit_shared`.

    Example, for every request:

        with gate.admit(pseudonyms(client_id, keys), "loan") as verdict:
            if isinstance(verdict, Refuse):
                ...                             # send verdict.status, verdict.headers, verdict.body
            else:
                if isinstance(verdict, Delay):
                    time.sleep(verdict.seconds)
                ...                             # call the application inside `with`: it counts as running
    """

    def __init__(
        self,
        decisions: Decisions,
        *,
        allowlist: Container[str] = frozenset(),
        block_status: int = 429,
        shared: SharedCounter | None = None,
    ) -> None:
        if block_status not in (403, 429):
            raise ValueError(f"block_status: expected 403 or 429; got {block_status}")
        self._decisions = decisions
        self._allowlist = allowlist
        self._block_status = block_status
        self._shared = shared
        self._windows = Windows()
        self._running: Tally[str] = Tally()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def admit(self, clients: Clients, model: str | None = None) -> Iterator[Verdict]:
        """What to do with one request. It runs until the context ends.

        clients : the client's names, as authentication established them.
        model : the model asked for; None obeys decisions about any model.
        """
        decision = self._decision(clients, model)
        refusal = None if decision is None else self._outright(decision)
        if decision is not None and refusal is None and (rate := decision.limits.requests_per_minute) is not None:
            refusal = self._over_rate(decision, rate, self._windows.hit(_key(decision), rate))
        with self._entered(decision, refusal) as verdict:
            yield verdict

    @contextlib.asynccontextmanager
    async def admit_shared(self, clients: Clients, model: str | None = None) -> AsyncIterator[Verdict]:
        """`admit` with the shared counter."""
        decision = self._decision(clients, model)
        refusal = None if decision is None else self._outright(decision)
        if decision is not None and refusal is None and (rate := decision.limits.requests_per_minute) is not None:
            counter = self._shared
            wait_s = await counter.hit(_key(decision), rate) if counter else self._windows.hit(_key(decision), rate)
            refusal = self._over_rate(decision, rate, wait_s)
        with self._entered(decision, refusal) as verdict:
            yield verdict

    @contextlib.contextmanager
    def _entered(self, decision: Throttle | None, refusal: Refuse | None) -> Iterator[Verdict]:
        ANSWERS.labels("passed" if decision is None else "limited" if refusal is None else "refused").inc()
        if decision is None:
            yield Allow()
        elif refusal is not None:
            yield refusal
        else:
            self._count_running(decision.client, 1)
            try:
                delay_ms = min(decision.limits.delay_ms or 0, DELAY_MAX_MS)
                yield Delay(decision, delay_ms / 1000) if delay_ms else Allow(decision)
            finally:
                self._count_running(decision.client, -1)

    def _count_running(self, client: str, change: int) -> None:
        with self._lock:
            self._running[client] += change
            if self._running[client] == 0:
                del self._running[client]

    def _decision(self, clients: Clients, model: str | None) -> Throttle | None:
        names = (clients,) if isinstance(clients, str) else tuple(clients or ())
        if not names or any(name in self._allowlist for name in names):
            return None
        return self._decisions.strictest(names, model)

    def _outright(self, decision: Throttle) -> Refuse | None:
        """A refusal that no count of earlier requests decides."""
        limits = decision.limits
        # A challenge needs a page of the gateway's own; without one the client waits.
        if decision.action in ("block", "challenge") or limits.requests_per_minute == 0:
            return self._refuse(decision, self._left_s(decision), "q=0")
        if limits.max_concurrency is not None and self._running[decision.client] >= limits.max_concurrency:
            return self._refuse(decision, 1, f'q={limits.max_concurrency};qu="concurrent-requests"')
        return None

    def _over_rate(self, decision: Throttle, rate: int, wait_s: float | None) -> Refuse | None:
        if wait_s is None:
            return None
        return self._refuse(decision, min(self._left_s(decision), max(1, math.ceil(wait_s))), f"q={rate};w=60")

    def _left_s(self, decision: Throttle) -> int:
        return max(1, math.ceil((decision.expires_at - self._decisions.now()).total_seconds()))

    def _refuse(self, decision: Throttle, wait_s: int, policy: str) -> Refuse:
        """policy : parameters of RateLimit-Policy, a Structured Field (RFC 9651)."""
        status = self._block_status if decision.action == "block" else 429
        problem = {
            "type": PROBLEM_TYPE,
            "title": "Abnormal usage detected",
            "status": status,
            "detail": "Requests of this client are limited for a time. Quote the instance when you appeal.",
            "instance": f"urn:decision:{decision.decision_id}",
            "violated-policies": [POLICY],
        }
        body = msgspec.json.encode(problem)
        headers = (
            ("content-type", "application/problem+json"),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("retry-after", str(wait_s)),
            ("ratelimit-policy", f'"{POLICY}";{policy}'),
            ("ratelimit", f'"{POLICY}";r=0;t={wait_s}'),
        )
        return Refuse(decision, status, headers, body)


class Windows:
    """Requests of the last 60 seconds, in the memory of this process. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[Hashable, deque[float]] = {}
        self._hits = 0
        self._lock = threading.Lock()

    def hit(self, key: Hashable, rate: int) -> float | None:
        """Count a request. None: it is within `rate` a minute; otherwise seconds until the next one is."""
        now = self._clock()
        with self._lock:
            times = self._times.setdefault((key, rate), deque())
            while times and times[0] <= now - WINDOW_S:
                times.popleft()
            self._hits += 1
            if self._hits % PURGE_EVERY == 0:
                self._purge(now)
            if len(times) >= rate:
                return times[0] + WINDOW_S - now
            times.append(now)
            return None

    def _purge(self, now: float) -> None:
        for key in [key for key, times in self._times.items() if times and times[-1] <= now - WINDOW_S]:
            del self._times[key]


def _key(decision: Throttle) -> tuple[str, str]:
    return decision.client, decision.model
