"""The ASGI door in front of a real application: refuses as asked, and otherwise is not there."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from limits.aio.storage import MemoryStorage
from limits.errors import StorageError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from detector.events.encode import moment, throttle
from probewatch_door.asgi import ProbewatchDoor, from_header
from probewatch_door.decisions import Decisions, KafkaDecisions
from probewatch_door.limits import PROBLEM_TYPE
from probewatch_door.pseudonym import PseudonymKey, pseudonyms
from probewatch_door.record import Limits, Throttle
from probewatch_door.shared import LimitsCounter
from tests.findings import FINDING
from tests.pipeline import until

KEY = PseudonymKey("k1", b"p" * 32)
OLD_KEY = PseudonymKey("k0", b"o" * 32)
ALICE, BOB = (pseudonyms(name, [KEY])[0] for name in ("alice", "bob"))
FAR = moment(4_000_000_000_000)


def record(client: str = ALICE, action: str = "cap", rate: int | None = 2, **changes: Any) -> Throttle:
    limits = Limits(rate, None, changes.pop("max_concurrency", None), changes.pop("delay_ms", None))
    changes = {"expires_at": FAR, "mode": "enforce", "action": action, "limits": limits, **changes}
    return msgspec.structs.replace(throttle(FINDING), client=client, **changes)


def view(*records: Throttle) -> Decisions:
    decisions = Decisions()
    decisions.heard()
    for one in records:
        decisions.apply(None, msgspec.json.encode(one))
    return decisions


async def predict(request: Request) -> Response:
    return JSONResponse({"length": len(await request.body())})


async def slow(request: Request) -> Response:
    """Answers when it may, if anybody has a say in it."""
    if gate := getattr(request.app.state, "gate", None):
        await gate.wait()
    return PlainTextResponse("done")


async def stream(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            yield part

    return StreamingResponse(parts())


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


ROUTES = [
    Route("/predict", predict, methods=["POST"]), Route("/slow", slow), Route("/stream", stream),
    WebSocketRoute("/echo", echo),
]  # fmt: skip


def protected(decisions: Decisions, **options: Any) -> Starlette:
    options = {"client_of": from_header("X-Client-Id", [KEY]), "model": "loan", **options}
    return Starlette(routes=ROUTES, middleware=[Middleware(ProbewatchDoor, decisions=decisions, **options)])


def http(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def ask(
    client: httpx.AsyncClient, name: str | None, path: str = "/predict", body: bytes = b"x"
) -> httpx.Response:
    headers = {} if name is None else {"X-Client-Id": name}
    return await (
        client.post(path, content=body, headers=headers) if path == "/predict" else client.get(path, headers=headers)
    )


async def test_a_cap_lets_so_many_through_and_no_more() -> None:
    async with http(protected(view(record(rate=2)))) as client:
        assert [(await ask(client, "alice")).status_code for _ in range(4)] == [200, 200, 429, 429]
        assert {(await ask(client, "bob")).status_code for _ in range(5)} == {200}
        assert (await ask(client, None)).status_code == 200


async def test_a_refusal_says_when_and_where_to_appeal_and_nothing_else() -> None:
    held = record(rate=1)
    async with http(protected(view(held))) as client:
        await ask(client, "alice")
        answer = await ask(client, "alice")
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == PROBLEM_TYPE
    assert problem["instance"] == f"urn:decision:{held.decision_id}"
    assert problem["status"] == 429
    wait_s = int(answer.headers["retry-after"])
    assert 55 <= wait_s <= 60
    assert answer.headers["ratelimit-policy"] == '"abnormal-usage";q=1;w=60'
    assert answer.headers["ratelimit"] == f'"abnormal-usage";r=0;t={wait_s}'
    said = answer.text + str(answer.headers)
    for secret in ("14.2", "11.8", "sweep", "nats", ALICE, held.finding_uid, held.trigger.request_id, held.config_hash):
        assert secret not in said


async def test_the_wait_never_outlasts_the_decision() -> None:
    soon = moment(int(time.time() * 1000) + 20_000)
    async with http(protected(view(record(rate=1, expires_at=soon)))) as client:
        await ask(client, "alice")
        assert 15 <= int((await ask(client, "alice")).headers["retry-after"]) <= 21


@pytest.mark.parametrize(("action", "status"), [("block", 403), ("challenge", 429)])
async def test_a_block_refuses_everything_until_it_expires(action: str, status: int) -> None:
    async with http(protected(view(record(action=action, rate=None)), block_status=403)) as client:
        answers = [await ask(client, "alice") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [status, status]
        assert answers[0].json()["status"] == status
        assert answers[0].headers["ratelimit-policy"] == '"abnormal-usage";q=0'
        assert int(answers[0].headers["retry-after"]) > 60


def test_other_refusals_are_a_mistake_of_configuration() -> None:
    with pytest.raises(ValueError, match="403 or 429"):
        ProbewatchDoor(protected(view()), view(), lambda _: None, block_status=500)


async def test_a_delay_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def recording(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", recording)
    async with http(protected(view(record(action="delay", rate=None, delay_ms=800)))) as client:
        assert (await ask(client, "bob")).status_code == 200
        assert 0.8 not in slept
        assert (await ask(client, "alice")).status_code == 200
        assert slept.count(0.8) == 1


async def test_so_many_at_once() -> None:
    app = protected(view(record(rate=None, max_concurrency=2)))
    app.state.gate = asyncio.Event()
    async with http(app) as client:
        asked = [asyncio.create_task(ask(client, "alice", "/slow")) for _ in range(4)]
        await until(lambda: sum(one.done() for one in asked) == 2, "two refusals")
        app.state.gate.set()
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        assert (await ask(client, "alice", "/slow")).status_code == 200, "places are given back"


@pytest.mark.parametrize(
    "change", [{"mode": "shadow"}, {"expires_at": moment(0)}, {"effective_at": FAR}, {"model": "x"}]
)
async def test_what_must_not_refuse(change: dict[str, Any]) -> None:
    async with http(protected(view(record(action="block", rate=None, **change)))) as client:
        assert (await ask(client, "alice")).status_code == 200


async def test_a_stale_view_refuses_nobody() -> None:
    decisions = Decisions()
    decisions.apply(None, msgspec.json.encode(record(action="block", rate=None)))
    async with http(protected(decisions)) as client:
        assert (await ask(client, "alice")).status_code == 200
        decisions.heard()
        assert (await ask(client, "alice")).status_code == 429


async def test_the_allowlist_comes_first() -> None:
    both = view(record(action="block", rate=None), record(BOB, "block", None))
    async with http(protected(both, allowlist={ALICE})) as client:
        assert (await ask(client, "alice")).status_code == 200
        assert (await ask(client, "bob")).status_code == 429


async def test_a_client_is_held_under_its_old_name_while_keys_rotate() -> None:
    old = pseudonyms("alice", [OLD_KEY])[0]
    door = protected(view(record(old, "block", None)), client_of=from_header("x-client-id", [KEY, OLD_KEY]))
    async with http(door) as client:
        assert (await ask(client, "alice")).status_code == 429
        assert (await ask(client, "bob")).status_code == 200


async def test_client_and_model_may_be_functions_of_the_scope() -> None:
    def model_of(scope: Any) -> str:
        return str(scope["path"]).strip("/")

    held = view(record(action="block", rate=None, model="slow"))
    async with http(protected(held, client_of=lambda _: ALICE, model=model_of)) as client:
        assert (await ask(client, None, "/slow")).status_code == 429
        assert (await ask(client, None)).status_code == 200


async def test_a_counter_out_of_reach_does_not_close_the_door() -> None:
    class Broken(MemoryStorage):
        async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            raise StorageError(ConnectionError())

    async with http(protected(view(record(rate=1)), shared=LimitsCounter(Broken()))) as client:
        assert {(await ask(client, "alice")).status_code for _ in range(3)} == {200}


async def test_bodies_and_streams_pass_untouched() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    async with http(protected(view(record(rate=100)))) as client:
        answer = await client.post("/predict", content=chunks(), headers={"X-Client-Id": "alice"})
        assert answer.json() == {"length": 64 * 65_536}
        assert (await ask(client, "alice", "/stream")).text == "one two three"


async def test_a_refusal_reads_no_body() -> None:
    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    door = ProbewatchDoor(protected(view()), view(record(action="block", rate=None)), lambda _: ALICE)
    await door({"type": "http", "headers": [], "path": "/predict", "method": "POST"}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert json.loads(sent[1]["body"])["title"]


async def test_an_error_of_the_application_gives_its_place_back() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("application")

    door = ProbewatchDoor(failing, view(record(rate=None, max_concurrency=1)), lambda _: ALICE)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="application"):
            await door({"type": "http", "headers": []}, None, None)  # type: ignore[arg-type]


def test_the_lifespan_passes_and_a_handshake_is_a_request() -> None:
    """The test client runs the lifespan; a server that knows denial responses sends ours."""
    started: list[str] = []

    class Lifespan:
        def __init__(self, app: Starlette) -> None:
            started.append("startup")

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None:
            started.append("shutdown")

    app = Starlette(
        routes=ROUTES,
        lifespan=Lifespan,
        middleware=[Middleware(ProbewatchDoor, decisions=view(record(rate=1)), client_of=from_header("x-id", [KEY]))],
    )
    with TestClient(app) as client:
        for name in ("alice", "bob", "bob"):
            with client.websocket_connect("/echo", headers={"x-id": name}) as socket:
                socket.send_text("hello")
                assert socket.receive_text() == "hello"
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("/echo", headers={"x-id": "alice"}),
        ):
            pass
        assert refused.value.status_code == 429 and refused.value.json()["type"] == PROBLEM_TYPE
        assert client.get("/slow", headers={"x-id": "alice"}).status_code == 429, "one window for both"
    assert started == ["startup", "shutdown"]


async def test_a_server_without_denial_responses_closes_the_handshake() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        assert not sent, "a server takes no answer before its own message"
        return {"type": "websocket.connect"}

    door = ProbewatchDoor(protected(view()), view(record(action="block", rate=None)), lambda _: ALICE)
    await door({"type": "websocket", "headers": [], "path": "/echo"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_an_open_socket_holds_its_place() -> None:
    """As a request does until its answer is sent."""
    door = protected(view(record(rate=None, max_concurrency=1)))
    with TestClient(door) as client, client.websocket_connect("/echo", headers={"x-client-id": "alice"}) as socket:
        assert client.post("/predict", content=b"x", headers={"x-client-id": "alice"}).status_code == 429
        socket.send_text("bye")
        assert socket.receive_text() == "bye"
        assert socket.receive()["type"] == "websocket.close"
    async with http(door) as again:
        assert (await ask(again, "alice")).status_code == 200


async def test_a_decision_on_the_topic_closes_the_door(embedded_broker: str, namespace: str) -> None:
    """The whole way: written to throttle-state, read by the view, obeyed over HTTP, lifted again."""
    topic = f"{namespace}.throttle-state"
    admin = AIOKafkaAdminClient(bootstrap_servers=embedded_broker)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=embedded_broker)
    await producer.start()

    async def write(one: Throttle) -> None:
        await producer.send_and_wait(topic, msgspec.json.encode(one), key=one.key.encode())

    async def becomes(client: httpx.AsyncClient, status: int) -> None:
        async def answered() -> bool:
            return (await ask(client, "alice")).status_code == status

        await until(answered, str(status))

    try:
        async with KafkaDecisions(embedded_broker, topic) as decisions, http(protected(decisions)) as client:
            assert await decisions.wait_fresh(120)
            assert (await ask(client, "alice")).status_code == 200
            await write(record(action="block", rate=None))
            await becomes(client, 429)
            assert (await ask(client, "bob")).status_code == 200
            await write(record(action="lift", rate=None, revision=3))
            await becomes(client, 200)
    finally:
        await producer.stop()
