"""The pseudonym key is changed under running workers: no row is lost, and what people said of clients goes on."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from zlib import crc32

import pytest
from aiokafka import AIOKafkaProducer

from detector.config import Config
from models.rows import CLASSES
from streams import frames, topics
from streams.control import send
from streams.doors.asgi import pseudonyms
from streams.doors.decisions import KafkaDecisions
from streams.identity import client_of, identities
from streams.progress import Silent
from streams.rekey import rekey
from streams.secrets import Secrets, load_secrets
from streams.sources import open_sources
from tests.faults.workers import WorkerProcess, workers
from tests.history import BEGIN_S, DAY_S, Row, benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, read_topic, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

NEW_KEY = "5a" * 32
ALLOWED, BROKER, SWEEPER = "evil-0", "acct-31-0", "evil-1"


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


class Pairs:
    """One worker of each stage, twice."""

    def __init__(self, fitted: Calibrated, folder: Path) -> None:
        self._fitted, self._folder = fitted, folder
        self._stacks: list[contextlib.AsyncExitStack] = []
        self.running: list[WorkerProcess] = []

    async def begin(self, config: Config) -> None:
        stack = contextlib.AsyncExitStack()
        folder = self._folder / str(len(self._stacks))
        folder.mkdir()
        self._stacks.append(stack)
        self.running += await stack.enter_async_context(
            workers(config, self._fitted, folder, {"sketch": 1, "judge": 1})
        )

    async def end(self, number: int) -> None:
        await self._stacks[number].aclose()

    @contextlib.asynccontextmanager
    async def all_ended(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for stack in self._stacks:
                await stack.aclose()


async def test_nothing_is_lost_and_what_people_said_holds(
    apache_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    plain = kafka_config(apache_broker, namespace, policy={"mode": "enforce"})
    (today,) = identities(fitted.secrets)
    (broker_name,) = pseudonyms(BROKER, [today])
    registry = plain.input.model_copy(update={"registry": {broker_name: "broker"}})
    old = plain.model_copy(update={"input": registry})
    new = rotated(old, fitted.secrets)
    secrets = load_secrets(new)
    await topics.create(old, RAW_PARTITIONS)
    pairs = Pairs(fitted, tmp_path)
    async with pairs.all_ended():
        await pairs.begin(old)
        await pairs.begin(old)
        end_ms = int((BEGIN_S + 90 * DAY_S) * 1000)
        await asyncio.to_thread(send, old, fitted.secrets, "allow", ALLOWED, "", end_ms, "a permitted test")
        await write(old, phase(0))
        await until(lambda: all_handled(old), 40, "before")
        found = await asyncio.to_thread(
            rekey, new, secrets, open_sources([f"kafka://{apache_broker}/{old.topics.raw[0]}"], new), Silent()
        )
        assert (len(found.orders), found.unknown, list(found.registry.values())) == (1, 0, ["broker"])
        traffic = asyncio.create_task(write(old, phase(1)))
        for number in (0, 1):
            await pairs.end(number)
            await pairs.begin(new)
        await traffic
        await write(old, phase(2))
        await until(lambda: all_handled(new), 40, "after")
        exits = [worker.exits for worker in pairs.running]
        assert not any(exits), "no worker may end for another reason"
        await door(new, secrets, apache_broker)
    await judged(new, fitted, secrets)


async def door(config: Config, secrets: Secrets, bootstrap: str) -> None:
    """Decisions of before and of after, both found."""
    async with KafkaDecisions(bootstrap, config.topics.throttle_state) as decisions:
        assert await decisions.wait_fresh(10)
        names = pseudonyms(SWEEPER, identities(secrets))
        assert [name[:3] for name in names] == ["k2-", "k1-"]
        assert all(decisions._keys.get(name) for name in names)
        assert not any(decisions._keys.get(name) for name in pseudonyms(ALLOWED, identities(secrets)))


async def judged(config: Config, fitted: Calibrated, secrets: Secrets) -> None:
    written = await read_events(config)
    expected = await offline(config, fitted, config.topics.requests, models=False)
    assert {name: {value} for name, value in expected.items()} == written.values
    keys = {name for value in expected.values() for name in re.findall(rb"(k\d)-[a-z2-7]{26}", value)}
    assert keys == {b"k1", b"k2"}, "events name the key in use"

    names = {key: client_of(pseudonyms(BROKER, [key])[0]) for key in identities(secrets)}
    positions, brokers = [], {"k1": 0, "k2": 0}
    for record in await read_topic(config, config.topics.requests):
        frame = frames.decode(record.value, record.partition, record.offset)
        if isinstance(frame, frames.RowFrame):
            rows = frame.rows
            positions += zip(rows.source.tolist(), rows.offset.tolist(), strict=True)
            for key, name in names.items():
                own = rows.client == name
                assert (rows.klass[own] == CLASSES.index("broker")).all()
                assert frame.key_id == key.key_id or not own.any()
                brokers[key.key_id] += int(own.sum())
    raw = await read_topic(config, config.topics.raw[0])
    assert len(set(positions)) == len(raw), "rows lost on the way"
    assert min(brokers.values()) > 0
