"""Batches that expand without end or cannot be unpacked: passed over by their header, and everything else goes on."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from streams.config.config import Config
from streams.history.sources import open_sources
from streams.kafka import bounded_fetch, topics
from streams.kafka.bounded_fetch import FETCHED_BYTES
from streams.kafka.skipped_batch import SkippedBatch
from streams.ops.dead_letters import read_letters
from tests.history import benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, read_topic, until, write_raw
from tests.test_worker import working

LIMIT = 1_000_000
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
PLACE = TopicPartition("t", 0)


@pytest.fixture(autouse=True)
def _installed() -> None:
    bounded_fetch.install(LIMIT)


def batch(base: int, values: Sequence[bytes], codec: str = "zstd", damage: bytes = b"") -> bytes:
    """As a producer writes it. damage : bytes that replace the beginning of its content, under a valid checksum."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=CODECS[codec], is_transactional=False, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 30,
    )  # fmt: skip
    for number, value in enumerate(values):
        builder.append(number, timestamp=1, key=None, value=value, headers=[])
    made = bytearray(builder.build())
    if damage:
        made[61 : 61 + len(damage)] = damage
        struct.pack_into(">I", made, 17, calc_crc32c(bytes(made[21:])))
    struct.pack_into(">q", made, 0, base)
    return bytes(made)


def unpacked(log: bytes, at: int = 0) -> list[Any]:
    return list(fetcher.PartitionRecords(PLACE, MemoryRecords(log), [], at, None, None, True, 0))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_expands_too_far_is_passed_over(codec: str) -> None:
    log = batch(0, [b"a", b"b"], codec) + batch(2, [bytes(LIMIT // 3)] * 4, codec) + batch(6, [b"c"], codec)
    first, second, skipped, last = unpacked(log)
    assert [record.offset for record in (first, second, skipped, last)] == [0, 1, 5, 6]
    assert isinstance(skipped.value, SkippedBatch) and skipped.key is None
    assert (skipped.value.first, skipped.value.last, skipped.value.expands) == (2, 5, True)
    assert [record.offset for record in unpacked(log, at=4)] == [5, 6], "from the middle of it too"
    assert (first.value, second.value, last.value) == (b"a", b"b", b"c")


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_cannot_be_unpacked_is_passed_over(codec: str) -> None:
    log = batch(0, [b"a"], codec) + batch(1, [b"x" * 50] * 3, codec, damage=b"\xff" * 9) + batch(4, [b"c"], codec)
    values = {record.offset: record.value for record in unpacked(log)}
    assert list(values) == [0, 3, 4] and isinstance(values[3], SkippedBatch) and not values[3].expands


def test_what_stands_before_the_bad_record_of_a_batch_is_read() -> None:
    """Its second record says that it is longer than the batch."""
    good = batch(0, [b"a", b"b"], "none")
    bad = bytearray(good)
    bad[61 + 8] = 0x7E
    struct.pack_into(">I", bad, 17, calc_crc32c(bytes(bad[21:])))
    (first, rest, last) = unpacked(bytes(bad) + batch(2, [b"c"]))
    assert (first.value, last.value) == (b"a", b"c")
    assert (rest.value.first, rest.value.last) == (1, 1)


def test_old_formats_are_passed_over_too() -> None:
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=1, batch_size=1 << 30)
    for number in range(4):
        builder.append(number, timestamp=1, key=None, value=bytes(LIMIT // 3))
    log = builder.build()
    struct.pack_into(">q", log, 0, 3)  # brokers write the last offset there
    (record,) = unpacked(bytes(log))
    assert isinstance(record.value, SkippedBatch) and record.value.expands and record.offset == 3


def test_damage_on_the_way_is_not_passed_over() -> None:
    """The broker has it whole: who reads again, reads it. Nothing that a producer writes may look like this."""
    bad = bytearray(batch(1, [b"y"]))
    bad[-1] ^= 1
    with pytest.raises(CorruptRecordException, match=f" {bounded_fetch.DAMAGED}"):
        unpacked(batch(0, [b"a"]) + bytes(bad))
    name = f"{bounded_fetch.DAMAGED}".encode() + b"\xff"
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 30,
    )  # fmt: skip
    builder.append(0, timestamp=1, key=None, value=b"", headers=[("x" * len(name), b"")])
    posing = builder.build().replace(b"x" * len(name), name)
    struct.pack_into(">I", posing, 17, calc_crc32c(bytes(posing[21:])))
    (record,) = unpacked(bytes(posing))
    assert isinstance(record.value, SkippedBatch)


class _State:
    paused = False
    position = 0

    def consumed_to(self, offset: int) -> None:
        self.position = offset


class _Assignment:
    active = True

    def __init__(self) -> None:
        self.state = _State()

    def state_value(self, place: TopicPartition) -> _State:
        return self.state


def test_a_call_returns_a_bounded_amount_and_the_next_one_goes_on() -> None:
    bounded_fetch.install(64 * 2**20)
    half = [bytes(FETCHED_BYTES // 2 + 1)]
    log = batch(0, half) + batch(1, half) + batch(2, half) + batch(3, [b"x" * 10] * 3)
    records = fetcher.PartitionRecords(PLACE, MemoryRecords(log), [], 0, None, None, True, 0)
    result = fetcher.FetchResult(PLACE, assignment=_Assignment(), partition_records=records, backoff=0)
    assert [record.offset for record in result.getall()] == [0, 1]
    assert result.has_more()
    assert [record.offset for record in result.getall(2)] == [2, 3]
    assert [record.offset for record in result.getall()] == [4, 5]
    assert not result.has_more()
    assert result._assignment.state.position == 6


async def write_bombs(config: Config, *, size: int) -> None:
    """One in each raw partition: four records that shrink to nothing."""
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, compression_type="gzip", max_batch_size=2**30)
    await producer.start()
    for partition in range(RAW_PARTITIONS):
        packed = producer.create_batch()
        for _ in range(4):
            packed.append(key=b"k", value=bytes(size // 4), timestamp=None)
        await (await producer.send_batch(packed, config.topics.raw[0], partition=partition))
    await producer.stop()


async def test_a_worker_goes_on_behind_a_bomb_and_so_does_the_next(
    broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(broker, namespace, input={"max_batch_bytes": LIMIT})
    await topics.create(config, RAW_PARTITIONS)
    rows = [*benign(60, seed=5), *sweeps(2, 60, seed=6)]
    async with working(config, fitted) as worker:
        await write_raw(config, rows[:60])
        await write_bombs(config, size=2 * LIMIT)
        await write_raw(config, rows[60:])
        await until(lambda: all_handled(config), "all committed")
        metrics = worker.metrics.render().decode()
    assert f'probewatch_rejects_total{{reason="size"}} {float(RAW_PARTITIONS)}' in metrics
    async with working(config, fitted):
        await write_raw(config, [row | {"ts": row["ts"] + 86_400} for row in rows[:30]])
        await until(lambda: all_handled(config), "all committed again")
    letters = await asyncio.to_thread(read_letters, None, config)
    assert len(letters) == RAW_PARTITIONS
    for letter in letters:
        assert letter.reject.message.startswith(f"{letter.place}: record: expected a batch of at most {LIMIT} bytes")
        assert letter.reject.got.endswith("which were passed over") and letter.record is not None
        assert letter.record.value is not None and letter.record.value.startswith(b"offsets ")
    expected = await offline(config, fitted, config.topics.raw[0])
    written = await read_events(config)
    assert len(expected) > 4
    assert {name: values.pop() for name, values in written.values.items() if len(values) == 1} == expected


async def test_history_is_read_past_a_bomb(embedded_broker: str, namespace: str) -> None:
    config = kafka_config(embedded_broker, namespace, input={"max_batch_bytes": LIMIT})
    await topics.create(config, RAW_PARTITIONS)
    await write_bombs(config, size=2 * LIMIT)
    await write_raw(config, benign(20, seed=5))
    (source,) = open_sources([f"kafka://{config.kafka.bootstrap}/{config.topics.raw[0]}"], config)
    found = await asyncio.to_thread(lambda: [record for batch in source.batches() for record in batch.records])  # type: ignore[union-attr]
    skipped = [record for record in found if isinstance(record.value, SkippedBatch)]
    assert len(skipped) == RAW_PARTITIONS and len(found) > 20


async def test_a_poisonous_message_of_requests_stops_no_judge(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    """`judge` and `link` read the bomb as a message that is no frame."""
    config = kafka_config(embedded_broker, namespace, input={"max_batch_bytes": LIMIT})
    await topics.create(config, RAW_PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, compression_type="gzip", max_batch_size=2**30)
    await producer.start()
    packed = producer.create_batch()
    packed.append(key=None, value=bytes(2 * LIMIT), timestamp=None)
    await (await producer.send_batch(packed, config.topics.requests, partition=0))
    await producer.stop()
    async with working(config, fitted):
        await write_raw(config, [*benign(60, seed=5), *sweeps(2, 60, seed=6)])
        await until(lambda: all_handled(config), "all committed")
    assert len((await read_events(config)).values) > 4
    letters = await read_topic(config, config.topics.dlq)
    assert [dict(letter.headers)["__streams.errors.topic"].decode() for letter in letters] == [config.topics.requests]
