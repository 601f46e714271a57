"""A range of a Kafka topic as a source: `kafka://host:port/topic?from=OFFSET&to=OFFSET&partition=N`.

`from` and `to` (exclusive) apply to every partition read. The source never reads beyond the end that the topic had when
reading began. The topic holds frames if it is the configured `requests` topic, raw records otherwise.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.config.config import Config
from streams.history.base import BATCH_RECORDS, Batch, Message, RawBatch, SourceError, decode_messages
from streams.kafka import bounded_fetch, topics
from streams.kafka.broker import log_ends, probe
from streams.kafka.clients import COMMITTED
from streams.sketch.sketcher import RawRecord

POLL_MS = 500
IDLE_S = 15.0
"""If the range is unfinished and nothing arrives for so long, it has expired, or the broker is unreachable."""


class KafkaSource:
    """name : the address. size : unknown until the range has been read."""

    def __init__(self, spec: str, config: Config) -> None:
        parts = urlsplit(spec)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.name = spec
        self.size: int | None = None
        self.topic = parts.path.strip("/")
        kafka = config.kafka.model_copy(update={"bootstrap": parts.netloc})
        self.config = config.model_copy(update={"kafka": kafka})
        self.holds_frames = self.topic == config.topics.requests
        if not parts.netloc or not self.topic or set(options) - {"from", "to", "partition"}:
            raise SourceError(f"{spec}: expected kafka://host:port/topic?from=OFFSET&to=OFFSET&partition=N")
        self.first, self.end, self.partition = (self._number(options, name) for name in ("from", "to", "partition"))

    def _number(self, options: dict[str, str], name: str) -> int | None:
        text = options.get(name)
        if text is not None and not (text.isascii() and text.isdigit()):
            raise SourceError(f"{self.name}: {name}: expected a whole number from 0; got {text!r}")
        return None if text is None else int(text)

    def partitions(self) -> list[int]:
        """Partitions that are read. Raises SourceError."""
        if self.partition is not None:
            return [self.partition]
        try:
            counts = asyncio.run(topics.partition_counts(self.config, [self.topic]))
        except (KafkaError, OSError) as error:
            raise SourceError(f"{self.name}: {error or type(error).__name__}") from error
        if not counts.get(self.topic):
            raise SourceError(f"{self.name}: topic {self.topic} does not exist")
        return list(range(counts[self.topic]))

    def part(self, partition: int, first: int | None, end: int | None) -> "KafkaSource":
        """Only [first, end) of one partition; None: from its beginning, to its end."""
        chosen = copy(self)
        chosen.partition, chosen.first, chosen.end = partition, first, end
        return chosen

    def batches(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[Batch]:
        for messages in self.messages():
            advance(sum(len(message.value or b"") for message in messages))
            if self.holds_frames:
                yield decode_messages(map(message_of, messages), self.name)
            else:
                records = [
                    RawRecord(m.offset, m.value, m.key, m.headers, m.timestamp, m.timestamp_type) for m in messages
                ]
                yield RawBatch(self.topic, messages[0].partition, records)

    def messages(self) -> Iterator[list[Any]]:
        """Consumer records: one list per partition, offsets rising. Closing the generator early closes the client."""
        with asyncio.Runner() as runner:
            reader = _RangeReader(self.config, self.topic)
            try:
                runner.run(reader.start(self.partition, self.first, self.end))
                while reader.unfinished:
                    yield from runner.run(reader.next())
            except (KafkaError, OSError) as error:
                raise SourceError(f"{self.name}: {error or type(error).__name__}") from error
            except _RangeError as error:
                raise SourceError(f"{self.name}: {error}") from error
            finally:
                runner.run(reader.stop())


def message_of(record: Any) -> Message:
    headers = tuple(record.headers)
    return Message(record.partition, record.offset, record.key, record.value, record.timestamp, headers)


class _RangeError(ValueError):
    """What is wrong with a range; the caller adds the address."""


class _RangeReader:
    """Reads [first, end) of the chosen partitions; done when `unfinished` is empty. Belongs to one event loop."""

    def __init__(self, config: Config, topic: str) -> None:
        self.config = config
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self.unfinished: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._moved = time.monotonic()

    async def start(self, partition: int | None, first: int | None, end: int | None) -> None:
        kafka = self.config.kafka
        features = await probe(kafka)
        count = (await topics.partition_counts(self.config, [self._topic])).get(self._topic, 0)
        if not count:
            raise _RangeError(f"topic {self._topic} does not exist")
        if partition is not None and partition >= count:
            raise _RangeError(f"partition: expected 0 to {count - 1}; got {partition}")
        bounded_fetch.install(self.config.input.max_batch_bytes)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            **COMMITTED,
            **kafka.client(),
        )
        await consumer.start()
        self._consumer = consumer
        numbers = range(count) if partition is None else (partition,)
        chosen = [TopicPartition(self._topic, number) for number in numbers]
        ends = await log_ends(consumer, chosen, features)
        starts = await consumer.beginning_offsets(chosen)
        consumer.assign(chosen)
        for place in chosen:
            if first is not None and first < starts[place]:
                raise _RangeError(
                    f"from: offset {first} of partition {place.partition} has expired; the first one is {starts[place]}"
                )
            begin, stop = (
                starts[place] if first is None else first,
                ends[place] if end is None else min(end, ends[place]),
            )
            if begin < stop:
                self.unfinished[place] = stop
                consumer.seek(place, begin)
            else:
                consumer.pause(place)

    async def next(self) -> list[list[Any]]:
        """The records of one fetch: one list per partition."""
        assert self._consumer is not None
        fetched = await self._consumer.getmany(
            *self.unfinished, timeout_ms=POLL_MS, max_records=BATCH_RECORDS * len(self.unfinished)
        )
        lists = []
        for place, records in sorted(fetched.items()):
            wanted = [record for record in records if record.offset < self.unfinished[place]]
            lists += [wanted[i : i + BATCH_RECORDS] for i in range(0, len(wanted), BATCH_RECORDS)]
        for place, stop in list(self.unfinished.items()):
            # The position, not the last record: compaction and transaction markers leave holes at the end of a range.
            position = await self._consumer.position(place)
            if position != self._positions.get(place):
                self._positions[place], self._moved = position, time.monotonic()
            if position >= stop:
                del self.unfinished[place]
                self._consumer.pause(place)
        if self.unfinished and time.monotonic() - self._moved > IDLE_S:
            raise _RangeError(f"no records for {IDLE_S:.0f} s; unread: {self._unread()}")
        return lists

    def _unread(self) -> str:
        return ", ".join(f"partition {place.partition} up to {stop}" for place, stop in sorted(self.unfinished.items()))

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
