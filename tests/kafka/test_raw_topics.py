"""Raw topics as others write them, on Apache Kafka: in transactions, stamped by the broker, with new partitions."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from detector.frame import RowFrame
from models.rows import FLAG_AHEAD
from streams.config.config import Config
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.ops import raw_topics
from streams.wire import frames
from streams.worker.app import Worker
from tests.history import Row, benign
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, committed, ends, offline, read_topic, until

pytestmark = pytest.mark.kafka

HOUR_S = 3_600.0


@asynccontextmanager
async def sketching(config: Config, fitted: Calibrated) -> AsyncIterator[Worker]:
    worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets, ["sketch"])
    asked = asyncio.Event()
    running = asyncio.create_task(worker.run(asked))
    try:
        await until(lambda: worker.ready, "ready")
        yield worker
    finally:
        asked.set()
        with suppress(Exception):
            await running


async def send(
    producer: AIOKafkaProducer, config: Config, rows: Sequence[Row], prefix: str, partition: int = 0
) -> None:
    for number, row in enumerate(rows):
        value = msgspec.json.encode(row | {"request_id": f"{prefix}-{number}"})
        await producer.send(config.topics.raw[0], value, partition=partition)
    await producer.flush()


async def sketched(config: Config) -> list[RowFrame]:
    found = [
        frames.decode(record.value, record.partition, record.offset)
        for record in await read_topic(config, config.topics.requests)
    ]
    return [frame for frame in found if isinstance(frame, RowFrame)]


def request_ids(found: Sequence[RowFrame]) -> set[str]:
    return {frame.rows.request_id(row) for frame in found for row in range(frame.rows.count)}


async def test_of_transactions_only_what_was_committed_is_read_live_and_replayed(
    apache_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(apache_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    rows = benign(10, seed=3)[:12]
    async with sketching(config, fitted):
        async with AIOKafkaProducer(bootstrap_servers=apache_broker, transactional_id=namespace) as producer:
            for number in range(6):
                await producer.begin_transaction()
                await send(producer, config, rows, f"{'good' if number % 2 else 'aborted'}{number}")
                await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
            await producer.begin_transaction()
            await send(producer, config, rows, "open")
            await until(lambda: _count_is(config, 3 * len(rows)), "what was committed is read")
            await producer.abort_transaction()
        async with AIOKafkaProducer(bootstrap_servers=apache_broker) as producer:
            await send(producer, config, rows[:1], "last")
        await until(lambda: all_handled(config, []), "read to the end")
    found = request_ids(await sketched(config))
    assert found == {f"good{n}-{i}" for n in (1, 3, 5) for i in range(len(rows))} | {"last-0"}
    begun = time.monotonic()
    raw = await offline(config, fitted, config.topics.raw[0])
    assert raw == await offline(config, fitted, config.topics.requests)
    assert time.monotonic() - begun < 60, "markers at the end of a range are not waited for"


async def _count_is(config: Config, count: int) -> bool:
    return len(request_ids(await sketched(config))) == count


async def test_new_partitions_are_read_within_a_minute(apache_broker: str, namespace: str, fitted: Calibrated) -> None:
    config = kafka_config(apache_broker, namespace)
    raw = config.topics.raw[0]
    await topics.create(config, RAW_PARTITIONS)
    async with sketching(config, fitted), AIOKafkaProducer(bootstrap_servers=apache_broker) as producer:
        await send(producer, config, benign(5, seed=3), "before")
        await until(lambda: all_handled(config, []), "read")
        admin = AIOKafkaAdminClient(bootstrap_servers=apache_broker)
        await admin.start()
        await admin.create_partitions({raw: NewPartitions(RAW_PARTITIONS + 2)})
        await admin.close()
        await until(lambda: _told(config, "nothing is read yet of partition"), "`topics check` knows")
        await producer.client.force_metadata_update()
        await send(producer, config, benign(5, seed=4), "after", RAW_PARTITIONS + 1)
        begun = time.monotonic()
        await until(lambda: _read_to_the_end(config, RAW_PARTITIONS + 1), "read")
        assert time.monotonic() - begun < 60
    assert any(name.startswith("after") for name in request_ids(await sketched(config)))


async def _told(config: Config, text: str) -> bool:
    return any(text in one for one in await topics.advice(config))


async def _read_to_the_end(config: Config, partition: int) -> bool:
    raw = config.topics.raw[0]
    read = await committed(config, "sketch", raw, partition + 1)
    return read[partition] == (await ends(config, raw, partition + 1))[partition] > 0


async def test_the_brokers_time_bounds_records_and_tells_of_clocks(
    apache_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(apache_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    assert await topics.advice(config) == []
    now = time.time()
    ahead, behind = (
        [row | {"ts": now + by, "client_id": f"c-{n}"} for n, row in enumerate(benign(5, seed=3))]
        for by in (24 * HOUR_S, -2 * HOUR_S)
    )
    async with sketching(config, fitted) as worker:
        async with AIOKafkaProducer(bootstrap_servers=apache_broker) as producer:
            await send(producer, config, ahead, "ahead")
            await send(producer, config, behind, "behind", 1)
        await until(lambda: all_handled(config, []), "read")
        worker.runners[0].stage._clocks.look()  # type: ignore[attr-defined]
        gauge = worker.metrics.registry.get_sample_value(
            "probewatch_source_behind_seconds", {"topic": config.topics.raw[0]}
        )
    for frame in await sketched(config):
        for row in range(frame.rows.count):
            append_ms, time_ms = int(frame.rows.append_ms[row]), int(frame.rows.time_ms[row])
            assert now * 1000 - 1_000 <= append_ms
            is_ahead = frame.rows.request_id(row).startswith("ahead")
            assert bool(frame.rows.flags[row] & FLAG_AHEAD) == is_ahead
            assert time_ms == append_ms + 300_000 if is_ahead else time_ms < append_ms - 7_000_000
    assert gauge is not None and gauge > 7_000
    told = {check.check: check.finding for check in await raw_topics.examine(config)}
    assert told.keys() == {"raw clocks", "raw keys"}
    assert f"{len(ahead)} of {len(ahead)} clients" in told["raw keys"]


async def test_a_topic_with_the_producers_time_is_advised_otherwise(apache_broker: str, namespace: str) -> None:
    config = kafka_config(apache_broker, namespace)
    await topics.create(config)
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_broker)
    await admin.start()

    await admin.create_topics([NewTopic(config.topics.raw[0], 1, 1)])
    await admin.close()
    await until(lambda: _told(config, "CreateTime"), "advised")
