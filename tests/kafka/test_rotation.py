"""The pseudonym key is changed under running workers: no row is lost, and what people said of clients goes on."""

import asyncio
import json
import re
import time
from pathlib import Path
from zlib import crc32

import pytest
from aiokafka import AIOKafkaProducer

from detector.frame import RowFrame
from models.pseudonym import client_of
from models.rows import CLASSES
from probewatch_door.decisions import KafkaDecisions
from probewatch_door.pseudonym import pseudonyms
from streams.config.config import Config
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.ops.orders import send
from streams.ops.rekey import rekey
from streams.progress import Silent
from streams.secrets.load import Secrets, load_secrets
from streams.sketch.identity import pseudonym_keys
from streams.wire import frames
from tests.faults.workers import installed, start_server, workers
from tests.history import DAY_S, Row, benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, read_topic, until

pytestmark = pytest.mark.kafka

SESSION_S = 15.0
"""Nobody is stopped without a word here, and a busy machine must not look like it."""

NEW_KEY = "5a" * 32
ALLOWED, BROKER, SWEEPER, BLOCKED = "evil-0", "acct-31-0", "evil-1", "acct-31-7"


def phase(number: int) -> list[Row]:
    """The same clients each time, a day later: two sweepers, of whom one is allowed, and ordinary ones."""
    rows = benign(40, seed=31, day=2 * number) + sweeps(3, 60, seed=32, day=2 * number)
    return [row | {"request_id": f"{number}/{place}"} for place, row in enumerate(rows)]


def rotated(config: Config, old: Secrets) -> Config:
    update = {
        "key_id": "k2", "pseudonym_key": NEW_KEY, "previous_key_id": "k1",
        "previous_pseudonym_key": old.pseudonym_key.hex(), "projection_seed": old.projection_seed.hex(),
    }  # fmt: skip
    return Config.model_validate(config.model_dump() | {"secrets": update})


async def write(config: Config, rows: list[Row]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    for number, row in enumerate(rows):
        partition = crc32(row["client_id"].encode()) % RAW_PARTITIONS
        await producer.send(config.topics.raw[0], json.dumps(row).encode(), partition=partition)
        if number % 20 == 19:
            await asyncio.sleep(0.2)
    await producer.stop()


async def test_nothing_is_lost_and_what_people_said_holds(
    apache_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    plain = kafka_config(apache_broker, namespace, policy={"mode": "enforce"})
    (today,) = pseudonym_keys(fitted.secrets)
    (broker_name,) = pseudonyms(BROKER, [today])
    registry = plain.input.model_copy(update={"registry": {broker_name: "broker"}})
    kafka = plain.kafka.model_copy(update={"session_timeout_s": SESSION_S})
    old = plain.model_copy(update={"input": registry, "kafka": kafka})
    new = rotated(old, fitted.secrets)
    secrets = load_secrets(new)
    await topics.create(old, RAW_PARTITIONS)
    await asyncio.to_thread(start_server, fitted)
    async with workers(old, fitted, tmp_path, {"sketch": 2, "judge": 2}) as running:
        end_ms = int((time.time() + 90 * DAY_S) * 1000)  # the broker's times count too
        await asyncio.to_thread(send, old, fitted.secrets, "allow", ALLOWED, "", end_ms, "a permitted test")
        await asyncio.to_thread(send, old, fitted.secrets, "block", BLOCKED, "", end_ms, "a leaked key")
        await write(old, phase(0))
        await until(lambda: all_handled(old, ["judge"]), "before")
        logs = open_sources([f"kafka://{apache_broker}/{old.topics.raw[0]}"], new)
        found = await asyncio.to_thread(rekey, new, secrets, logs, Silent())
        assert ([order.action for order in found.orders], found.unknown) == (["block", "allow"], 0)
        assert list(found.registry.values()) == ["broker"]
        traffic = asyncio.create_task(write(old, phase(1)))
        for worker in running:
            assert await worker.leave() == 0
            worker.config = installed(new, fitted)
            worker.join()
            await worker.ready()
        await traffic
        await write(old, phase(2))
        await until(lambda: all_handled(new, ["judge"]), "after")
        assert not any(worker.exits for worker in running), "no worker may end for another reason"
        await door(new, secrets, apache_broker)
    await judged(new, fitted, secrets)


async def door(config: Config, secrets: Secrets, bootstrap: str) -> None:
    """Decisions of before and of after, both found."""
    async with KafkaDecisions(bootstrap, config.topics.throttle_state) as decisions:
        assert await decisions.wait_fresh(120)
        names = pseudonyms(SWEEPER, pseudonym_keys(secrets))
        assert [name[:3] for name in names] == ["k2-", "k1-"]
        assert all(decisions._keys.get(name) for name in names)
        assert not any(decisions._keys.get(name) for name in pseudonyms(ALLOWED, pseudonym_keys(secrets)))


async def judged(config: Config, fitted: Calibrated, secrets: Secrets) -> None:
    written = await read_events(config)
    expected = await offline(config, fitted, config.topics.requests, models=False)
    assert {name: {value} for name, value in expected.items()} == written.values
    keys = {name for value in expected.values() for name in re.findall(rb"(k\d)-[a-z2-7]{26}", value)}
    assert keys == {b"k1", b"k2"}, "events name the key in use"

    names = {key: client_of(pseudonyms(BROKER, [key])[0]) for key in pseudonym_keys(secrets)}
    positions: list[tuple[int, int]] = []
    brokers = {"k1": 0, "k2": 0}
    for record in await read_topic(config, config.topics.requests):
        frame = frames.decode(record.value, record.partition, record.offset)
        if isinstance(frame, RowFrame):
            rows = frame.rows
            positions += zip(rows.source.tolist(), rows.offset.tolist(), strict=True)
            for key, name in names.items():
                own = rows.client == name
                assert (rows.client_class[own] == CLASSES.index("broker")).all()
                assert frame.key_id == key.key_id or not own.any()
                brokers[key.key_id] += int(own.sum())
    raw = await read_topic(config, config.topics.raw[0])
    assert len(set(positions)) == len(raw), "rows lost on the way"
    assert min(brokers.values()) > 0
