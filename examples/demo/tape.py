"""Reads the demo's topics while it runs and keeps what is needed for the files and the figures at the end."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record. timestamp_ms : as the broker tells it. stamped : the broker set it, not the producer."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    stamped: bool = False

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def line(self) -> bytes:
        """The record as it was written, with its place added: what `probewatch replay` reads."""
        place = {"topic": self.topic, "partition": self.partition, "offset": self.offset}
        place |= {"append_ms": self.timestamp_ms} if self.stamped else {}
        return self.value.rstrip()[:-1] + b',"_kafka":' + json.dumps(place).encode() + b"}\n"


@dataclass(slots=True)
class Tape:
    """Everything written to some topics since they began; inside a partition offsets rise. partitions : of each topic.

    Use as an async context manager; reading goes on in the background until the end of the block.
    """

    bootstrap: str
    topics: Sequence[str]
    partitions: int
    records: dict[str, list[Record]] = field(default_factory=dict)
    _reader: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> "Tape":
        self.records = {topic: [] for topic in self.topics}
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reader is not None
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            places = [TopicPartition(topic, number) for topic in self.topics for number in range(self.partitions)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            while True:
                for place, batch in (await consumer.getmany(timeout_ms=200)).items():
                    self.records[place.topic] += [
                        Record(
                            place.topic, place.partition, r.offset, r.timestamp, r.value or b"", r.timestamp_type == 1
                        )
                        for r in batch
                    ]
        finally:
            await consumer.stop()

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in self.records[topic]]

    async def until(self, topic: str, count: int, timeout_s: float = 20.0) -> None:
        """Wait until `count` records of a topic have been read. Raises TimeoutError."""
        assert self._reader is not None
        async with asyncio.timeout(timeout_s):
            while len(self.records[topic]) < count:
                ended, _ = await asyncio.wait([self._reader], timeout=0.05)
                for reader in ended:
                    reader.result()

    def write(self, topic: str, path: Path, *, place: bool = False) -> None:
        """One record a line; with `place`, each with its position."""
        lines = (r.line() if place else r.value + b"\n" for r in self.records[topic])
        path.write_bytes(b"".join(lines))
