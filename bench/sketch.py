"""How fast `sketch` turns raw records into frames, beside a plain reader of the same topic in the same run.

Plain reader: aiokafka `getmany` and one typed msgspec decode a record, nothing kept. Sketch: the same `getmany`, then
`Sketcher.frames` and `frames.encode`; with sending, every frame is also written to `requests` and acknowledged. All on
one core; the broker is another process. The two take turns, and each one's best round counts, because a shared machine
disturbs in one direction only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import process_time, thread_time
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.fixtures import KINDS, Kind, artefacts, calibrated, records
from detector.config import Config
from streams import frames
from streams.adapters.request import Request
from streams.identity import Identity
from streams.sketch import Message, RawRecord, Sketcher

ROUNDS = 5
BATCH_RECORDS = 4_096
CLIENTS = 10_000
REQUESTS = "bench.requests"

_decode = msgspec.json.Decoder(Request).decode


@dataclass(frozen=True, slots=True)
class Sketched:
    """Rows a second by processor time: decode alone and sketch alone, from memory; then all three from the topic."""

    kind: str
    rows: int
    record_bytes: int
    frame_bytes_per_row: float
    decode: float
    sketch: float
    topic_plain: float
    topic_sketch: float
    topic_sketch_and_send: float

    @property
    def share(self) -> float:
        """Sketch's rate as a share of the plain reader's, both from the topic, without sending."""
        return self.topic_sketch / self.topic_plain


def measure(kind: Kind, rows: int, bootstrap: str) -> Sketched:
    """kind : one of fixtures.KINDS. bootstrap : a broker that may be written to."""
    values = list(records(kind, rows, CLIENTS))
    raws = [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(values)]
    decode, sketch = _in_turn(lambda: _plain(raws), lambda: _sketch(raws))
    topic = asyncio.run(_from_topic(kind, values, bootstrap))
    size = sum(len(value) for value in _sketch(raws)) / rows
    mean = sum(map(len, values)) // rows
    return Sketched(kind.name, rows, mean, size, rows / decode, rows / sketch, *(rows / seconds for seconds in topic))


def _in_turn(*tasks: Callable[[], Any]) -> list[float]:
    best = [float("inf")] * len(tasks)
    for _ in range(ROUNDS):
        for place, task in enumerate(tasks):
            begun = thread_time()
            task()
            best[place] = min(best[place], thread_time() - begun)
    return best


def _plain(raws: list[RawRecord]) -> None:
    for record in raws:
        _decode(record.value)  # type: ignore[arg-type]


def _sketcher() -> Sketcher:
    secrets = calibrated()[1]
    identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
    return Sketcher(artefacts(), identity, Config())


_shared: list[Sketcher] = []


def _sketch(raws: Sequence[Message]) -> list[bytes]:
    """Frames of all records, in batches as they would be fetched."""
    if not _shared:
        _shared.append(_sketcher())
    partitions = Config().topics.partitions
    encoded: list[bytes] = []
    for start in range(0, len(raws), BATCH_RECORDS):
        result = _shared[0].frames("bench", 0, "0", raws[start : start + BATCH_RECORDS], partitions)
        assert not result.rejects and not result.unjudged
        encoded += map(frames.encode, result.frames)
    return encoded


async def _from_topic(kind: Kind, values: list[bytes], bootstrap: str) -> list[float]:
    """Seconds to read the topic: plain, sketched, sketched and sent."""
    topic = f"bench.{KINDS.index(kind)}"
    await _fill(topic, values, bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=2**20)
    await producer.start()

    async def plain(batch: list[Any]) -> None:
        for record in batch:
            _decode(record.value)

    async def sketch(batch: list[Any]) -> None:
        _sketch(batch)

    async def send(batch: list[Any]) -> None:
        sent = [await producer.send(REQUESTS, value) for value in _sketch(batch)]
        await asyncio.gather(*sent)

    best = [float("inf")] * 3
    try:
        for _ in range(ROUNDS):
            for place, handle in enumerate((plain, sketch, send)):
                best[place] = min(best[place], await _read(topic, len(values), bootstrap, handle))
    finally:
        await producer.stop()
    return best


async def _fill(topic: str, values: list[bytes], bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    if topic.endswith(".0"):
        await admin.create_topics([NewTopic(REQUESTS, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=2**18, linger_ms=20)
    await producer.start()
    for start in range(0, len(values), BATCH_RECORDS):
        sent = [await producer.send(topic, value, partition=0) for value in values[start : start + BATCH_RECORDS]]
        await asyncio.gather(*sent)
    await producer.stop()


async def _read(topic: str, count: int, bootstrap: str, handle: Callable[[list[Any]], Awaitable[None]]) -> float:
    """Processor seconds from the first fetch to the last record handled."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=4 * 2**20,
    )  # fmt: skip
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        seen, begun = 0, process_time()
        while seen < count:
            fetched = await consumer.getmany(timeout_ms=5_000, max_records=BATCH_RECORDS)
            assert fetched, "the broker gave nothing for five seconds"
            for batch in fetched.values():
                await handle(batch)
                seen += len(batch)
        return process_time() - begun
    finally:
        await consumer.stop()


def main(rows: int = 40_000) -> None:
    from streams.embedded import EmbeddedBroker

    with EmbeddedBroker() as broker:
        for kind in KINDS:
            print(measure(kind, rows, broker.bootstrap))


if __name__ == "__main__":
    main()
