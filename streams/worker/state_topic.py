"""Blocks of client state in a compacted topic: written one by one, read back as a whole partition.

A damaged or foreign record costs no event: reading begins again at the mark of an older one. It cannot stop a judge as
long as an older one exists.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detector import engine
from streams.config.config import Config
from streams.kafka.broker import Features, log_ends
from streams.kafka.clients import FRAMING_BYTES, reader
from streams.kafka.topics import state_bytes
from streams.metrics import Metrics
from streams.wire import settings_log
from streams.wire.settings_log import JudgedWith
from streams.worker.stage import StageError

LOG_HEADER = "probewatch-log"
"""Id of the topic that the offsets in a state belong to."""

SILENT_S = 60.0
"""Recovery fails if a broker returns no record of a state for so long."""

LOGGED_MAX = 5
"""Damaged records that are logged one by one."""

log = structlog.get_logger("probewatch")


@dataclass(slots=True)
class Stored:
    """What the topic holds of one partition.

    blocks : block -> the value with the furthest mark.
    marks : block -> that mark.
    damaged : blocks with a damaged record; its mark may have been further.
    logs : topic ids that these offsets belong to.
    settings : which settings the partition was judged with, from which offset on.
    read_bytes : of all records, superseded ones included.
    """

    blocks: dict[int, bytes] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    logs: set[str] = field(default_factory=set)
    settings: list[JudgedWith] = field(default_factory=list)
    read_bytes: int = 0

    def keep(self, value: bytes) -> None:
        """Keep a block unless one with a further mark is known. Raises engine.BlockError.

        The furthest mark counts, not the last record: a stalled worker that wakes may have written an old block behind
        a newer one. At one mark all writers agree, since a block is a function of the log before its mark.
        """
        mark = engine.block_mark(value)
        if self.marks.get(mark.block, -1) < mark.offset:
            self.blocks[mark.block], self.marks[mark.block] = value, mark.offset

    def lose(self, block: int) -> None:
        """A block with a valid checksum cannot be loaded."""
        del self.blocks[block], self.marks[block]
        self.damaged.add(block)

    def begin(self, committed: int) -> int:
        """Where reading must begin so that nothing of a damaged record is missing: at or below the committed offset."""
        return min([committed, *(self.marks.get(block, 0) for block in self.damaged)])


class StateTopic:
    """Partition p of this topic holds the blocks of partition p of `requests`."""

    def __init__(self, producer: AIOKafkaProducer, config: Config, features: Features, metrics: Metrics) -> None:
        self._producer = producer
        self._config = config
        self._features = features
        self._metrics = metrics

    async def write(self, partition: int, blocks: Mapping[int, bytes], log_id: str = "") -> None:
        """Returns when the broker has all of them; raises clients.SendError otherwise."""
        topic, headers = self._config.topics.judge_state, [(LOG_HEADER, log_id.encode())]
        sent = [
            await self._producer.send(topic, value, key=_key(partition, block), partition=partition, headers=headers)
            for block, value in sorted(blocks.items())
        ]
        await asyncio.gather(*sent)
        self._metrics.blocks.inc(len(blocks))
        self._metrics.block_bytes.inc(sum(map(len, blocks.values())))

    async def write_settings(self, settings: Sequence[JudgedWith]) -> None:
        """Returns when the broker has all of them; raises clients.SendError otherwise."""
        topic = self._config.topics.judge_state
        sent = [
            await self._producer.send(topic, settings_log.encode(one), key=one.key, partition=one.partition)
            for one in settings
        ]
        await asyncio.gather(*sent)

    async def read(self, partitions: Sequence[int]) -> dict[int, Stored]:
        """Every block ever written in these partitions, the furthest of each: see read_state."""
        return await read_state(self._config, self._features, self._metrics, partitions)


async def read_state(
    config: Config, features: Features, metrics: Metrics, partitions: Sequence[int]
) -> dict[int, Stored]:
    """Every block ever written in these partitions, the furthest of each.

    Raises StageError if the broker stops responding, engine.BlockError for a block of another version's layout.
    """
    states = {partition: Stored() for partition in partitions}
    if not states:
        return states  # a consumer that stops as soon as it has started cancels its caller
    topic = config.topics.judge_state
    most = state_bytes(config) + FRAMING_BYTES
    bad = 0
    async with reader(config, max_partition_fetch_bytes=most, fetch_max_bytes=4 * most) as consumer:
        async for record in read_log(consumer, [TopicPartition(topic, n) for n in partitions], features):
            states[record.partition].read_bytes += len(record.value or b"")
            problem = _take(states[record.partition], record, config.state.blocks)
            if problem is not None:
                bad += 1
                metrics.damaged.labels(topic).inc()
                if bad <= LOGGED_MAX:
                    log.warning("damaged record", what=problem, at=f"{topic}[{record.partition}]@{record.offset}")
    if bad > LOGGED_MAX:
        log.warning("damaged records", records=bad, topic=topic)
    return states


def _take(stored: Stored, record: Any, blocks: int) -> str | None:
    """What is wrong with a record, if anything. Tombstones count as foreign."""
    settings = settings_log.decode(record.key, record.value, record.partition)
    if settings is not None:
        stored.settings.append(settings)
        return None
    block = _block(record.key, record.partition)
    try:
        mark = engine.block_mark(record.value or b"")
        if (mark.partition, mark.block) != (record.partition, block):
            raise engine.DamagedBlockError("the value belongs to another block")
    except engine.DamagedBlockError as error:
        if block is None or block >= blocks:
            return f"foreign record: {error}"
        stored.damaged.add(block)
        return f"block {block}: {error}"
    stored.keep(record.value)
    stored.logs.add(dict(record.headers).get(LOG_HEADER, b"").decode(errors="replace"))
    return None


async def read_log(
    consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], features: Features
) -> AsyncIterator[Any]:
    """Every record of these partitions up to their current end.

    consumer : started, without a group.
    Raises StageError if the broker returns nothing for SILENT_S; Faust's own recovery would wait forever.
    """
    if not places:
        return
    stuck = f"{places[0].topic}: no record for {SILENT_S:.0f} s before the end of the log: recovery is stuck"
    now = asyncio.get_running_loop().time
    moved, before = now(), None
    ends = await log_ends(consumer, places, features)
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    unread = {place: end for place, end in ends.items() if end > 0}
    while unread:
        for records in (await consumer.getmany(*unread, timeout_ms=200)).values():
            for record in records:
                yield record
        # The position, not the last record: compaction or retention may have removed the end of the log.
        try:
            async with asyncio.timeout(SILENT_S):
                positions = {place: await consumer.position(place) for place in unread}
        except TimeoutError:
            raise StageError(stuck) from None
        unread = {place: end for place, end in unread.items() if positions[place] < end}
        if positions != before:
            moved, before = now(), positions
        elif now() - moved > SILENT_S:
            raise StageError(stuck)


def _key(partition: int, block: int) -> bytes:
    return b"%d/%d" % (partition, block)


def _block(key: bytes | None, partition: int) -> int | None:
    """The block that a record's key names, if the key belongs to this partition."""
    _, _, number = (key or b"").partition(b"/")
    return int(number) if number.isdigit() and key == _key(partition, int(number)) else None
