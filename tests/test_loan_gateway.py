"""The example gateway: what it answers, what it refuses, what it logs; and that its traffic is what it says it is."""

import argparse
import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError
from starlette.testclient import TestClient

from examples.attackers import PATIENCE, Box, FormulaSweep, GaveUpError, HopSkipJump, Prober
from examples.loan_gateway import log as gateway_log
from examples.loan_gateway.__main__ import application
from examples.loan_gateway.app import MAX_BODY_BYTES, build_app
from examples.loan_gateway.log import KafkaLog
from examples.loan_gateway.model import (
    FIELDS,
    TRAINING_ROWS,
    Applications,
    BadFeaturesError,
    Features,
    LoanModel,
    encode,
    load_applications,
)
from examples.traffic import CLASS_OF_KIND, LIVE_SIZES, population
from streams.adapters import native
from streams.wire.rejects import Fault
from tests.pipeline import until


@dataclass
class MemoryLog:
    """A request log that can be looked at."""

    connected: bool = True
    waiting: int = 0
    dropped: int = 0
    failures: int = 0
    records: list[tuple[str, bytes]] = field(default_factory=list)

    def write(self, client_id: str, record: bytes) -> None:
        self.records.append((client_id, record))


@pytest.fixture(scope="module")
def applications() -> tuple[Applications, Applications]:
    return load_applications()


@pytest.fixture(scope="module")
def model(applications: tuple[Applications, Applications]) -> LoanModel:
    return LoanModel(applications[0])


@pytest.fixture(scope="module")
def people(applications: tuple[Applications, Applications]) -> list[Features]:
    return applications[1].features


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def client(model: LoanModel, log: MemoryLog) -> Iterator[TestClient]:
    with TestClient(build_app(model, log, {"acct-9": "broker"})) as opened:
        yield opened


def post(client: TestClient, body: object, client_id: str | None = "acct-1") -> httpx.Response:
    headers = {} if client_id is None else {"X-Client-Id": client_id}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer: httpx.Response = client.post("/v1/score", content=content, headers=headers)
    return answer


def test_the_model_has_learnt_something(applications: tuple[Applications, Applications], model: LoanModel) -> None:
    """On rows it never saw, accepted applicants are much more often prime than declined ones."""
    unseen = applications[1]
    rows = np.concatenate([encode(features) for features in unseen.features])
    accepted = model.scores(rows) >= 0.5
    assert len(applications[0].features) == TRAINING_ROWS
    assert unseen.prime[accepted].mean() > unseen.prime[~accepted].mean() + 0.35
    assert 0.3 < accepted.mean() < 0.8


def test_no_field_tells_the_lenders_decision() -> None:
    leaks = {"grade", "sub_grade", "interest_rate", "installment", "balance", "loan_status", "issue_month"}
    assert not leaks & set(FIELDS)
    assert not any(name.startswith("paid_") for name in FIELDS)


def test_an_application_is_scored_and_logged(client: TestClient, log: MemoryLog, people: list[Features]) -> None:
    answer = post(client, people[0])
    assert answer.status_code == 200
    body = answer.json()
    assert body["label"] == ("accept" if body["score"] >= 0.5 else "decline")
    [(key, value)] = log.records
    record = native.decode(value, ())
    assert not isinstance(record, Fault)
    written = msgspec.json.decode(value)
    assert key == written["client_id"] == "acct-1"
    assert written["features"] == people[0]
    assert written["output"] == {"label": body["label"], "score": body["score"]}
    assert written["request_id"] == body["request_id"]


def test_the_class_is_the_gateways_to_say(client: TestClient, log: MemoryLog, people: list[Features]) -> None:
    client.post("/v1/score", json=people[0], headers={"X-Client-Id": "acct-1", "X-Client-Class": "broker"})
    post(client, people[0], "acct-9")
    assert [msgspec.json.decode(value)["client_class"] for _, value in log.records] == ["consumer", "broker"]


Change = Callable[[Features], object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f | {"annual_income": "much"}, "annual_income: expected a number from 0 to 1e9; got a string"),
        (lambda f: f | {"annual_income": True}, "annual_income: expected a number from 0 to 1e9; got a boolean"),
        (lambda f: f | {"annual_income": -1}, "got a number out of range"),
        (lambda f: f | {"annual_income": None}, "got null"),
        (lambda f: f | {"emp_length": [3]}, "emp_length: expected a number from 0 to 1e9 or null; got an array"),
        (lambda f: f | {"loan_purpose": "yacht"}, "loan_purpose: expected one of car, credit_card"),
        (lambda f: f | {"zodiac": "leo"}, "unknown fields: zodiac"),
        (lambda f: {k: v for k, v in f.items() if k != "term"}, "term: missing"),
        (lambda f: [f], "body: expected one JSON object"),
        (lambda f: b"{", "body: expected one JSON object"),
        (lambda f: b'{"annual_income": NaN}', "body: expected one JSON object"),
        (lambda f: b'{"annual_income": "\xff"}', "body: expected one JSON object"),
        (lambda f: b'{"annual_income":' + b"[" * 9_000, "body: expected one JSON object"),
        (lambda f: b" " * (MAX_BODY_BYTES + 1), f"body: expected at most {MAX_BODY_BYTES} bytes"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_not_logged(
    client: TestClient, log: MemoryLog, people: list[Features], change: Change, words: str
) -> None:
    answer = post(client, change(dict(people[0])))
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert not log.records


def test_a_client_must_name_itself(client: TestClient, log: MemoryLog, people: list[Features]) -> None:
    for client_id in (None, "", "x" * 129):
        assert post(client, people[0], client_id).status_code == 400
    assert not log.records


def test_a_blank_may_stand_where_real_applications_have_one(people: list[Features]) -> None:
    assert encode(people[0] | {"emp_length": None}).shape == (1, len(FIELDS))
    with pytest.raises(BadFeaturesError):
        encode(people[0] | {"loan_amount": None})


async def test_the_log_reaches_kafka_keyed_by_client(embedded_broker: str, namespace: str) -> None:
    async with KafkaLog(embedded_broker, f"{namespace}-gateway-logs") as log:
        log.write("acct-1", b"{}")
        await until(lambda: log.waiting == 0, "handed over")
    consumer = AIOKafkaConsumer(
        f"{namespace}-gateway-logs", bootstrap_servers=embedded_broker, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        record = await consumer.getone()
    finally:
        await consumer.stop()
    assert (record.key, record.value, log.failures, log.dropped) == (b"acct-1", b"{}", 0, 0)


async def test_the_log_keeps_the_newest_while_kafka_is_away() -> None:
    """Beyond its room it drops the oldest, and counts; nothing ever waits."""
    async with KafkaLog("127.0.0.1:1", "nowhere", waiting_max=10) as log:
        for number in range(25):
            log.write("acct-1", b"%d" % number)
        await asyncio.sleep(0)
        assert (log.waiting, log.dropped, log.connected) == (10, 15, False)
        assert [record for _, record in log._waiting] == [b"%d" % number for number in range(15, 25)]
    assert log.dropped == 25, "what is left at the end is counted"


def test_a_gateway_without_any_broker_answers(people: list[Features], tmp_path: Path) -> None:
    """Its whole application, with a door: it starts, answers, and says what becomes of its log."""
    (tmp_path / "key").write_text("ab" * 32)
    options = argparse.Namespace(
        bootstrap="127.0.0.1:1", topic="gateway-logs", registry=None, pseudonym_key=tmp_path / "key", decisions="none"
    )
    with TestClient(application(options)) as client:
        assert {post(client, people[number]).status_code for number in range(200)} == {200}
        health = client.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert health.json()["log"] == {"connected": False, "waiting": 200, "dropped": 0, "failures": 0}


async def test_a_broker_that_goes_away_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not taken waits; the writer does not, even where the client library would."""
    taken, open_again = [], asyncio.Event()

    class Hanging:
        def __init__(self, **_: object) -> None: ...
        async def start(self) -> None: ...
        async def stop(self) -> None: ...

        async def send(self, topic: str, value: bytes, key: bytes) -> "asyncio.Future[None]":
            if value == b"3" and not open_again.is_set():
                await open_again.wait()
                raise KafkaTimeoutError
            taken.append(value)
            sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            sent.set_result(None)
            return sent

    monkeypatch.setattr(gateway_log, "AIOKafkaProducer", Hanging)
    async with KafkaLog("broker:9092", "gateway-logs", waiting_max=50) as log:
        for number in range(40):
            log.write("acct-1", b"%d" % number)
        await until(lambda: len(taken) == 3, "the first three")
        assert (log.waiting, log.dropped) == (37, 0)
        open_again.set()
        await until(lambda: log.waiting == 0, "the rest")
    assert taken == [b"%d" % number for number in range(40)], "in order, the refused one tried again"


def test_the_population_is_benign_varied_and_repeatable(people: list[Features]) -> None:
    made = [population(np.random.default_rng(3), people, LIVE_SIZES) for _ in range(2)]
    assert [c.requests for c in made[0]] == [c.requests for c in made[1]]
    assert {kind: sum(c.kind == kind for c in made[0]) for kind in LIVE_SIZES} == LIVE_SIZES
    assert len({c.id for c in made[0]}) == len(made[0]) >= 200
    for client in made[0]:
        for features in client.requests:
            encode(features)
        distinct = {json.dumps(features) for features in client.requests}
        if client.kind in ("retry storm", "health check"):
            assert len(distinct) == 1 < len(client.requests)
        if client.kind in CLASS_OF_KIND and client.kind != "health check":
            assert len(distinct) > 15


def refusing_after(served: int) -> httpx.MockTransport:
    """A gateway of which only the refusals matter."""
    left = iter(range(served))
    return httpx.MockTransport(
        lambda _: httpx.Response(429) if next(left, None) is None else httpx.Response(200, json={"label": "decline"})
    )


def test_an_attacker_counts_and_gives_up(people: list[Features]) -> None:
    prober = Prober("http://gateway", "acct-1", "sweep", http=httpx.Client(transport=refusing_after(7)))
    sweep = FormulaSweep(people[0], prober.ask)
    with pytest.raises(GaveUpError):
        sweep.run()
    assert (prober.served, prober.served_first, prober.refused) == (7, 7, PATIENCE)
    assert len(sweep.answers) == 7


def test_the_sweep_changes_one_field_at_a_time(people: list[Features]) -> None:
    grid = list(FormulaSweep(people[0], lambda _: "decline").grid())
    assert len(set(grid)) == len(grid) >= 400
    assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in itertools.pairwise(grid))


@pytest.mark.filterwarnings("ignore")
def test_hopskipjump_walks_towards_the_victim(model: LoanModel, people: list[Features]) -> None:
    """With the numbers of the victim it sends nothing new; a few hundred rows bring it nearer than it began."""
    victim = next(p for p in people if None not in p.values() and 0.35 <= model.decide(p)[1] < 0.5)
    box = Box.of(people)
    distances: list[float] = []

    def ask(features: Features) -> str:
        if len(distances) == 300:
            raise GaveUpError
        distances.append(float(np.linalg.norm(box.scaled(features) - box.scaled(victim))))
        return model.decide(features)[0]

    attack = HopSkipJump(victim, box, ask)
    with pytest.raises(GaveUpError):
        attack.run()
    assert distances[0] < 1e-6
    assert attack.nearest < max(distances) / 2
