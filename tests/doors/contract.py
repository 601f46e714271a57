"""What every door owes: checks that take any door. `test_contract.py` runs them, also on doors with a fault."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec

from detector.events.encode import throttle
from probewatch_door.asgi import DENIAL, ProbewatchDoor, from_header
from probewatch_door.decisions import Decisions
from probewatch_door.limits import PROBLEM_TYPE
from probewatch_door.pseudonym import PseudonymKey, pseudonyms
from probewatch_door.record import Limits, Throttle
from tests.findings import FINDING

KEY = PseudonymKey("k1", b"p" * 32)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Answer(NamedTuple):
    """reached : whether the application was called, which answers 200 and "ok"."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    reached: bool


class Ask(Protocol):
    """One request through the door and back."""

    def __call__(self, *values: str | bytes) -> Answer:
        """values : the client's id, as often as its header stands in the request. Text is sent as UTF-8."""


def header_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


Build = Callable[..., Ask]
"""(decisions, allowlist=…, block_status=…) -> a door before an application of the model "loan"."""


class Setting:
    """A view on a clock turned by hand, and a door that obeys it."""

    def __init__(self, build: Build, **options: Any) -> None:
        self.now = NOON
        self.decisions = Decisions(clock=lambda: self.now.timestamp())
        self.decisions.heard()
        self.ask = build(self.decisions, **options)

    def decide(self, action: str, client: str = "alice", rate: int | None = None, **changes: Any) -> Throttle:
        """A decision from now on for an hour, unless `changes` say otherwise."""
        times = {"issued_at": self.now, "effective_at": self.now, "expires_at": self.now + timedelta(hours=1)}
        limits = Limits(rate, None, None, changes.pop("delay_ms", None))
        about = {"client": pseudonyms(client, [KEY])[0], "model": "loan", "action": action, "limits": limits}
        record = msgspec.structs.replace(throttle(FINDING), **{"mode": "enforce", **about, **times, **changes})
        self.decisions.apply(None, msgspec.json.encode(record))
        return record

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)
        self.decisions.heard()


def passes_clients_without_a_decision(build: Build) -> None:
    setting = Setting(build)
    setting.decide("block")
    answer = setting.ask("bob")
    assert (answer.status, answer.body, answer.reached) == (200, b"ok", True)


def fails_open_on_a_stale_view(build: Build) -> None:
    setting = Setting(build)
    setting.decide("block")
    assert setting.ask("alice").status == 429
    setting.now += timedelta(minutes=2)
    assert setting.ask("alice").status == 200
    setting.decisions.heard()
    assert setting.ask("alice").status == 429


def obeys_the_strictest(build: Build) -> None:
    setting = Setting(build)
    setting.decide("cap", rate=100)
    setting.decide("block", origin="link", mode="shadow")
    assert setting.ask("alice").status == 200, "shadow mode holds nobody"
    setting.decide("block", origin="person")
    assert setting.ask("alice").status == 429


def holds_to_the_rate(build: Build) -> None:
    setting = Setting(build)
    setting.decide("cap", rate=2)
    assert [setting.ask("alice").status for _ in range(4)] == [200, 200, 429, 429]


def honours_the_beginning_and_the_end(build: Build) -> None:
    setting = Setting(build)
    setting.decide("block", effective_at=NOON + timedelta(minutes=10), expires_at=NOON + timedelta(minutes=20))
    statuses = []
    for _ in range(5):
        statuses.append(setting.ask("alice").status)
        setting.later(minutes=5)
    assert statuses == [200, 200, 429, 429, 200]


def obeys_a_lift(build: Build) -> None:
    setting = Setting(build)
    setting.decide("block")
    assert setting.ask("alice").status == 429
    setting.decide("lift", revision=3)
    assert setting.ask("alice").status == 200


def delays(build: Build) -> None:
    setting = Setting(build)
    setting.decide("delay", delay_ms=300)
    begun = time.perf_counter()
    assert setting.ask("alice").status == 200
    assert time.perf_counter() - begun >= 0.3


def refuses_without_naming_the_statistic(build: Build) -> None:
    setting = Setting(build)
    record = setting.decide("block")
    answer = setting.ask("alice")
    assert (answer.status, answer.reached) == (429, False)
    problem = json.loads(answer.body)
    assert (problem["type"], problem["instance"]) == (PROBLEM_TYPE, f"urn:decision:{record.decision_id}")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["content-type"] == "application/problem+json" and headers["retry-after"] == "3600"
    assert headers["ratelimit-policy"] == '"abnormal-usage";q=0'
    text = answer.body.decode() + str(answer.headers)
    for secret in (record.reason, "14.2", "11.8", "nats", record.client, record.finding_uid, record.config_hash):
        assert secret not in text, secret


def lets_the_allowlist_through(build: Build) -> None:
    setting = Setting(build, allowlist=frozenset(pseudonyms("alice", [KEY])))
    setting.decide("block")
    setting.decide("block", client="bob")
    assert (setting.ask("alice").status, setting.ask("bob").status) == (200, 429)


def refuses_blocks_with_the_chosen_status(build: Build) -> None:
    setting = Setting(build, block_status=403)
    setting.decide("block")
    setting.decide("challenge", client="bob")
    assert (setting.ask("alice").status, setting.ask("bob").status) == (403, 429)


def knows_a_client_by_its_bytes(build: Build) -> None:
    """A header is bytes; the log that was judged has them as UTF-8 or as latin-1, where they are no UTF-8 replaced."""
    sent = "josé".encode()
    for logged in (sent.decode(), sent.decode("latin-1")):
        setting = Setting(build)
        setting.decide("block", client=logged)
        assert setting.ask(sent).status == 429, f"logged as {logged!a}"
        assert (setting.ask("jose").status, setting.ask("jos").status) == (200, 200)
    sent = b"jos\xe9"
    for logged in (sent.decode("latin-1"), sent.decode("utf-8", "replace")):
        setting = Setting(build)
        setting.decide("block", client=logged)
        assert setting.ask(sent).status == 429, f"logged as {logged!a}"


def refuses_a_header_that_stands_twice(build: Build) -> None:
    """Without a word: the gateway may log either, so a client under a decision could add another's name."""
    setting = Setting(build)
    setting.decide("block")
    for values in (("bob", "alice"), ("alice", "bob"), ("bob", "bob")):
        answer = setting.ask(*values)
        assert (answer.status, answer.body, answer.reached) == (400, b"", False), values
    assert setting.ask("bob").reached


CHECKS = (
    passes_clients_without_a_decision,
    fails_open_on_a_stale_view,
    obeys_the_strictest,
    holds_to_the_rate,
    honours_the_beginning_and_the_end,
    obeys_a_lift,
    delays,
    refuses_without_naming_the_statistic,
    lets_the_allowlist_through,
    refuses_blocks_with_the_chosen_status,
    knows_a_client_by_its_bytes,
    refuses_a_header_that_stands_twice,
)


def asgi(decisions: Decisions, door: type[ProbewatchDoor] = ProbewatchDoor, kind: str = "http", **options: Any) -> Ask:
    """The ASGI door, called without a server."""
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["path"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": b"ok"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

    behind = door(app, decisions, from_header("X-Client-Id", [KEY]), "loan", **options)

    def ask(*values: str | bytes) -> Answer:
        sent: list[Any] = []
        called.clear()

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            body = {"type": "http.request", "body": b"", "more_body": False}
            return body if kind == "http" else {"type": "websocket.connect"}

        headers = [(b"x-client-id", header_bytes(value)) for value in values]
        scope = {"type": kind, "path": "/predict", "headers": headers, "extensions": {DENIAL: {}}}
        asyncio.run(behind(scope, receive, send))
        if sent[0]["type"] == "websocket.accept":
            return Answer(200, {}, sent[1]["bytes"], bool(called))
        assert [message["type"] for message in sent] == [f"{_answers(kind)}.{part}" for part in ("start", "body")]
        said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], said, sent[1]["body"], bool(called))

    return ask


def _answers(kind: str) -> str:
    return "http.response" if kind == "http" else DENIAL


def asgi_websocket(decisions: Decisions, **options: Any) -> Ask:
    """The same door and its answer to a WebSocket's handshake; 200 stands for an accepted one."""
    return asgi(decisions, kind="websocket", **options)
