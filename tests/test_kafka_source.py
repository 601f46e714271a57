"""A range of a topic as a source, on both brokers."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from detector.frame import ControlFrame
from models.pseudonym import pseudonym
from streams.config.config import Config
from streams.history.base import FrameBatch, RawBatch, SourceError
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.wire.frames import encode_control
from tests.kafka_config import kafka_config

RECORDS = 300


@pytest.fixture
async def config(broker: str, namespace: str) -> Config:
    """Raw topic of two partitions with RECORDS each, in many batches, and one order in `requests`."""
    made = kafka_config(broker, namespace)
    await topics.create(made, raw_partitions=2)
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    for n in range(RECORDS):
        for partition in (0, 1):
            await producer.send(made.topics.raw[0], b"%d" % n, partition=partition, headers=[("h", b"x")])
        if n % 50 == 0:
            await producer.flush()
    order = ControlFrame(2, 0, "allow", 7, pseudonym("k1", 7, bytes(9)), "", 1, "test")
    await producer.send_and_wait(made.topics.requests, encode_control(order), partition=2)
    await producer.stop()
    return made


def read(config: Config, rest: str) -> Iterator[Any]:
    (source,) = open_sources([f"kafka://{config.kafka.bootstrap}/{rest}"], config)
    return source.batches()


def offsets(config: Config, options: str) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for batch in read(config, config.topics.raw[0] + options):
        assert isinstance(batch, RawBatch)
        assert all(record.value == b"%d" % record.offset for record in batch.records)
        found.setdefault(batch.partition, []).extend(record.offset for record in batch.records)
    return found


def test_the_whole_topic_and_parts_of_it(config: Config) -> None:
    everything = list(range(RECORDS))
    assert offsets(config, "") == {0: everything, 1: everything}
    assert offsets(config, "?from=290&partition=1") == {1: everything[290:]}
    assert offsets(config, "?from=5&to=9") == {0: [5, 6, 7, 8], 1: [5, 6, 7, 8]}
    assert offsets(config, f"?from={RECORDS}") == {}


def test_the_requests_topic_gives_frames(config: Config) -> None:
    (batch,) = read(config, config.topics.requests)
    assert isinstance(batch, FrameBatch)
    assert [(frame.partition, frame.offset) for frame in batch.frames] == [(2, 0)]


def test_a_source_can_be_read_twice_and_left_early(config: Config) -> None:
    (source,) = open_sources([f"kafka://{config.kafka.bootstrap}/{config.topics.raw[0]}"], config)
    next(iter(source.batches()))
    assert sum(len(batch.records) for batch in source.batches() if isinstance(batch, RawBatch)) == 2 * RECORDS


@pytest.mark.parametrize(
    ("rest", "message"),
    [("nowhere", "topic nowhere does not exist"), ("{raw}?partition=7", "partition: expected 0 to 1; got 7")],
)
def test_what_is_not_there_is_said(config: Config, rest: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        list(read(config, rest.format(raw=config.topics.raw[0])))


def test_nobody_at_the_address_is_said() -> None:
    with pytest.raises(SourceError, match=r"kafka://127\.0\.0\.1:9/x: "):
        list(read(Config(kafka={"bootstrap": "127.0.0.1:9"}), "x"))
