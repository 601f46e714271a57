"""The plain reader, which every figure is held against: aiokafka's `getmany` and one typed msgspec decode a record."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import process_time
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.fixtures import NUMBERS, records
from bench.performance.common import Run
from streams.adapters.request import Request

FETCH_RECORDS = 4_096
FETCH_BYTES = 4 * 2**20
SILENT_MS = 10_000
CLIENTS = 10_000
decode = msgspec.json.Decoder(Request).decode

Handle = Callable[[list[Any]], Awaitable[None]]


class Plain:
    """A topic of embeddings of 64 numbers in JSON to hold other figures against, read once for each `rate`."""

    def __init__(self, run: Run) -> None:
        self._run, self._count = run, run.size(40_000, 10_000)
        self._topic = f"{run.namespace}.plain.{id(self)}"
        asyncio.run(fill(run, self._topic, list(records(NUMBERS, self._count, CLIENTS))))

    def rate(self) -> float:
        """Records a second of processor time."""
        return self._count / asyncio.run(read(self._run, self._topic, self._count, plain))


async def plain(batch: list[Any]) -> None:
    for record in batch:
        decode(record.value)


async def nothing(batch: list[Any]) -> None:
    """The transport alone."""


async def read(run: Run, topic: str, count: int, handle: Handle) -> float:
    """Processor seconds of this process, all threads, from the first fetch of partition 0 to the last record."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=run.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )  # fmt: skip
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        seen, begun = 0, process_time()
        while seen < count:
            fetched = await consumer.getmany(timeout_ms=SILENT_MS, max_records=FETCH_RECORDS)
            if not fetched:
                raise RuntimeError(f"{topic}: the broker gave nothing for {SILENT_MS / 1000:.0f} s")
            for batch in fetched.values():
                await handle(batch)
                seen += len(batch)
        return process_time() - begun
    finally:
        await consumer.stop()


async def fill(run: Run, topic: str, values: list[bytes]) -> None:
    """Make the topic, with one partition, and write the values."""
    await make(run, [topic])
    producer = AIOKafkaProducer(bootstrap_servers=run.bootstrap, acks="all", max_batch_size=2**18, linger_ms=20)
    await producer.start()
    for start in range(0, len(values), FETCH_RECORDS):
        sent = [await producer.send(topic, value, partition=0) for value in values[start : start + FETCH_RECORDS]]
        await asyncio.gather(*sent)
    await producer.stop()


async def make(run: Run, topics: Iterable[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=run.bootstrap)
    await admin.start()
    answer = await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    await admin.close()
    refused = [error for error in answer.topic_errors if error[1]]
    if refused:
        raise RuntimeError(f"topics were not made: {refused}")


async def forget(run: Run) -> None:
    """Delete all topics of this run: the broker may be somebody's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.bootstrap)
    await admin.start()
    ours = [name for name in await admin.list_topics() if name.startswith(f"{run.namespace}.")]
    if ours:
        await admin.delete_topics(ours)
    await admin.close()
