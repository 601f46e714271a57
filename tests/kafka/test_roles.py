"""The whole way on a broker that trusts nobody: each role does its work, and everything else is refused."""

import asyncio
import json

import pytest
from aiokafka.errors import KafkaConnectionError

from probewatch_door.decisions import KafkaDecisions
from streams.config.config import Config
from streams.kafka import acl_check, topics
from streams.kafka.acl import ROLES, bindings
from streams.kafka.acl_check import RightsError
from streams.kafka.broker import probe
from streams.ops import dead_letters, orders
from streams.ops.doctor import examine
from streams.sketch.identity import identity_of
from streams.sketch.sketcher import Sketcher
from streams.worker.app import Worker, reason
from tests.history import benign, sweeps
from tests.kafka.closed_broker import ROOT, Closed, as_user, change_acls
from tests.kafka.roles import DOCS, Answers, measure, prepare, section
from tests.kafka_config import kafka_config
from tests.pipeline import (
    HANGS_S,
    RAW_PARTITIONS,
    Calibrated,
    all_handled,
    offline,
    read_events,
    read_topic,
    until,
    write_raw,
)
from tests.test_worker import working

pytestmark = pytest.mark.kafka

ALLOWED = {
    "gateway": {"write raw"},
    "worker": {
        "read raw",
        *(f"{verb} {topic}" for topic in ("requests", "judge_state", "link_state") for verb in ("read", "write")),
        *(f"write {topic}" for topic in ("alerts", "throttle", "throttle_state", "drift", "dlq")),
        *(
            f"see settings {topic}"
            for topic in (
                "requests",
                "judge_state",
                "link_state",
                "alerts",
                "throttle",
                "throttle_state",
                "drift",
                "feedback",
                "dlq",
            )
        ),
        "group sketch",
        "group judge",
        "group link",
    },
    "soc": {"read alerts", "read throttle", "read drift", "group soc"},
    "door": {"read throttle_state"},
    "analyst": {"read requests", "read alerts", "read throttle", "read drift", "read feedback", "write feedback"},
    "operator": {"write requests", "write raw", "read dlq", "write dlq"},
    "admin": {
        f"{verb} settings {topic}"
        for verb in ("see", "change")
        for topic in (
            "requests",
            "judge_state",
            "link_state",
            "alerts",
            "throttle",
            "throttle_state",
            "drift",
            "feedback",
            "dlq",
        )
    },
}
"""Everything else is refused. Written out once more, since the table in the code is what is examined."""


@pytest.fixture(scope="module")
def answers(closed: Closed) -> Answers:
    config = kafka_config(closed.scram, "roles")
    prepare(closed, config)
    return measure(closed, config)


def test_every_role_can_do_its_work_and_nothing_else(answers: Answers) -> None:
    assert set(answers) == set(ROLES) == set(ALLOWED)
    assert {len(found) for found in answers.values()} == {10 * 6 + 5 + 3}
    assert {role: {name for name, allowed in found.items() if allowed} for role, found in answers.items()} == ALLOWED


def test_the_document_shows_what_the_broker_answered(answers: Answers) -> None:
    assert section(answers) in DOCS.read_text(encoding="utf-8"), "run `make roles`"


@pytest.mark.parametrize("way", ["scram", "mtls"])
async def test_the_whole_way_under_users_of_their_own(
    closed: Closed, way: str, namespace: str, fitted: Calibrated
) -> None:
    """Nobody is more than their role: made by admin, fed by the gateway, worked, read by SOC, door and analyst."""
    base = kafka_config(closed.scram, namespace, policy={"mode": "enforce"})
    users = {role: as_user(base, closed, role, way) for role in (*ROLES, ROOT)}
    closed.grant(base)
    assert len(await topics.create(users["admin"])) == 9
    await topics.create(users[ROOT], RAW_PARTITIONS)
    assert await topics.check(users["worker"]) == []
    rows = [*benign(60, seed=5), *sweeps(2, 60, seed=6), {"client_id": "broken", "ts": "never"}]
    async with working(users["worker"], fitted):
        await write_raw(users["gateway"], rows)
        await until(lambda: all_handled(users[ROOT]), "all committed")
    expected = await offline(users[ROOT], fitted, base.topics.raw[0])
    assert len(expected) > 4
    written = await read_events(users["soc"])
    assert {name: values.pop() for name, values in written.values.items()} == expected
    assert await offline(users["analyst"], fitted, base.topics.requests) == expected
    door = users["door"]
    async with KafkaDecisions(door.kafka.bootstrap, door.topics.throttle_state, **door.kafka.client()) as decisions:
        assert await decisions.wait_fresh(120)
        assert decisions.faults == 0
    assert await read_topic(door, door.topics.throttle_state)
    (letter,) = await read_topic(users["operator"], base.topics.dlq)
    assert json.loads(letter.value)["client_id"] == "broken"
    await mended_and_sent_again(users["operator"], fitted)
    order = (users["operator"], fitted.secrets, "lift", "evil-0", "", 0, "by mistake")
    assert await asyncio.to_thread(orders.send, *order) == base.topics.partitions


async def mended_and_sent_again(operator: Config, fitted: Calibrated) -> None:
    """As `dlq retry` does, with the letter's record made readable; then it is no letter any more."""
    sketcher = Sketcher(fitted.artefacts, identity_of(fitted.secrets, operator.input.registry), operator)
    (letter,) = await asyncio.to_thread(dead_letters.read_letters, None, operator)
    assert letter.record is not None
    (refused,) = await asyncio.to_thread(dead_letters.retry, [letter], operator, sketcher)
    assert refused.did == "refused"
    value = json.dumps(benign(1, seed=9)[0] | {"request_id": "mended"}).encode()
    mended = letter._replace(record=letter.record._replace(value=value))
    (sent,) = await asyncio.to_thread(dead_letters.retry, [mended], operator, sketcher)
    assert (sent.did, sent.detail) == ("sent", f"{letter.reject.topic}[{letter.reject.partition}]")
    assert await asyncio.to_thread(dead_letters.read_letters, None, operator) == []


async def test_doctor_names_the_right_that_is_missing(
    closed: Closed, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = kafka_config(closed.scram, namespace)
    worker = as_user(base, closed, "worker")
    closed.grant(base)
    await topics.create(as_user(base, closed, ROOT), 1)
    monkeypatch.setattr("streams.ops.doctor.load_settings", lambda _: worker)

    async def found() -> dict[str, tuple[str, str]]:
        checks = await asyncio.to_thread(examine, None)
        return {check.finding: (check.state, check.fix) for check in checks if check.check in ("rights", "topics")}

    async def in_order() -> bool:
        return {state for state, _ in (await found()).values()} == {"ok"}

    await until(in_order, "a broker whose groups have coordinators, and rights that have reached it")
    taken = [
        one
        for one in bindings(base, {"worker": "User:worker"})
        if (one.role, one.resource_name, one.operation)
        in {("worker", base.topics.judge_state, "Write"), ("worker", f"{namespace}-judge", "Read")}
    ]
    assert len(taken) == 2
    change_acls(closed, taken, remove=True)

    async def noticed() -> bool:
        return len([None for state, _ in (await found()).values() if state == "fault"]) == 2

    await until(noticed, "two rights gone")
    after = await found()
    state, mend = after[f"no right Write on topic {base.topics.judge_state}"]
    assert state == "fault"
    assert mend.endswith(f"--add --allow-principal User:worker --operation Write --topic {base.topics.judge_state}")
    assert after[f"no right Read on group {namespace}-judge"][0] == "fault"
    monkeypatch.setattr("streams.ops.doctor.load_settings", lambda _: as_user(base, closed, ROOT))
    root = await found()
    assert any(state == "warning" and "more than worker needs: " in finding for finding, (state, _) in root.items())


async def test_why_the_broker_lets_nobody_in_is_told(closed: Closed, namespace: str) -> None:
    """A wrong password, an unknown authority, a certificate that is missing."""
    kafka = as_user(kafka_config(closed.scram, namespace), closed, "door").kafka
    assert await acl_check.refusal(kafka) == ""
    wrong = {"sasl_username": "analyst"}, {"ssl_cafile": None}, {"bootstrap": closed.mtls, "security_protocol": "SSL"}
    told = [await acl_check.refusal(kafka.model_copy(update=changed)) for changed in wrong]
    for text, words in zip(
        told, ("SaslAuthenticationFailed", "unable to get local issuer", "it may want a certificate"), strict=True
    ):
        assert words in text
    with pytest.raises(KafkaConnectionError, match="SaslAuthenticationFailed"):
        await probe(kafka.model_copy(update=wrong[0]))


@pytest.mark.parametrize(
    ("resource", "operation"),
    [
        ("raw", "Read"),
        ("requests", "Write"),
        ("judge_state", "Read"),
        ("judge_state", "Write"),
        ("throttle", "Write"),
        ("dlq", "Write"),
        ("-sketch", "Read"),
        ("-judge", "Read"),
    ],
)
async def test_a_worker_without_a_right_ends_and_says_what_was_refused(
    closed: Closed, namespace: str, fitted: Calibrated, resource: str, operation: str
) -> None:
    config = kafka_config(closed.scram, namespace)
    worker = as_user(config, closed, "worker")
    name = namespace + resource if resource.startswith("-") else f"{namespace}.{resource}"
    granted = list(bindings(config, {role: f"User:{role}" for role in ROLES}))
    kept = [one for one in granted if (one.role, one.resource_name, one.operation) != ("worker", name, operation)]
    assert len(kept) == len(granted) - 1
    change_acls(closed, kept)
    await topics.create(as_user(config, closed, ROOT), RAW_PARTITIONS)
    await write_raw(as_user(config, closed, "gateway"), [*sweeps(2, 40, seed=6), {"client_id": "b", "ts": "never"}])
    running = Worker(worker, await probe(worker.kafka), fitted.artefacts, fitted.secrets, ("sketch", "judge"))
    with pytest.raises(RightsError) as caught:
        await asyncio.wait_for(running.run(asyncio.Event()), HANGS_S)
    kind = "group" if resource.startswith("-") else "topic"
    assert str(caught.value).startswith(f"no right {operation} on {kind} {name} (")


async def test_a_right_that_is_withdrawn_ends_the_worker(closed: Closed, namespace: str, fitted: Calibrated) -> None:
    """While it runs, the refused write names the topic; started again, it names the right."""
    config = kafka_config(closed.scram, namespace)
    closed.grant(config)
    await topics.create(as_user(config, closed, ROOT), RAW_PARTITIONS)
    worker = as_user(config, closed, "worker")
    running = Worker(worker, await probe(worker.kafka), fitted.artefacts, fitted.secrets, ("sketch", "judge"))
    ending = asyncio.create_task(running.run(asyncio.Event()))
    while not running.ready:  # noqa: ASYNC110 readiness sets no event
        await asyncio.sleep(0.05)
    withdrawn = [one for one in bindings(config, {"worker": "User:worker"}) if one.role == "worker"]
    change_acls(
        closed,
        [one for one in withdrawn if (one.resource_name, one.operation) == (config.topics.requests, "Write")],
        remove=True,
    )
    await write_raw(as_user(config, closed, "gateway"), sweeps(1, 40, seed=6))
    with pytest.raises(BaseException) as caught:
        await asyncio.wait_for(ending, HANGS_S)
    assert config.topics.requests in reason(caught.value)
