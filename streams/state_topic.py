"""Blocks of client state in a compacted topic: written one by one, read back as a whole partition."""

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition

from detector import engine
from detector.config import Config
from streams.clients import FRAMING_BYTES, reader
from streams.embedded import Features, log_ends
from streams.metrics import Metrics
from streams.topics import state_bytes

Blocks = dict[int, dict[int, bytes]]
"""partition -> block -> value."""


class StateTopic:
    """Partition p of this topic holds the blocks of partition p of `requests`."""

    def __init__(self, producer: AIOKafkaProducer, config: Config, features: Features, metrics: Metrics) -> None:
        self._producer = producer
        self._config = config
        self._features = features
        self._metrics = metrics

    async def write(self, partition: int, blocks: Mapping[int, bytes]) -> None:
        """Returns when the broker has all of them; raises aiokafka's KafkaError otherwise."""
        topic = self._config.topics.judge_state
        sent = [
            await self._producer.send(topic, value, key=b"%d/%d" % (partition, block), partition=partition)
            for block, value in sorted(blocks.items())
        ]
        await asyncio.gather(*sent)
        self._metrics.blocks.inc(len(blocks))
        self._metrics.block_bytes.inc(sum(map(len, blocks.values())))

    async def read(self, partitions: Sequence[int]) -> Blocks:
        """The furthest state of every block ever written in these partitions.

        The record with the furthest mark counts, not the last one: a stalled worker that wakes may have written an old
        block behind a newer one. At one mark all writers agree, since a block is a function of the log before its mark.
        Raises engine.BlockError for a value that is no block.
        """
        if not partitions:
            return {}
        found: Blocks = {partition: {} for partition in partitions}
        topic = self._config.topics.judge_state
        places = [TopicPartition(topic, partition) for partition in partitions]
        most = state_bytes(self._config) + FRAMING_BYTES
        async with reader(self._config, max_partition_fetch_bytes=most, fetch_max_bytes=4 * most) as consumer:
            ends = await log_ends(consumer, places, self._features)
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            unread = {place: end for place, end in ends.items() if end > 0}
            while unread:
                for records in (await consumer.getmany(*unread, timeout_ms=200)).values():
                    for record in records:
                        keep_furthest(found[record.partition], record.value)
                # The position, not the last record: compaction may have taken the end of the log.
                positions = {place: await consumer.position(place) for place in unread}
                unread = {place: end for place, end in unread.items() if positions[place] < end}
        return found


def keep_furthest(blocks: dict[int, bytes], value: bytes | None) -> None:
    """Put a record of the topic in its block's place, unless what is there reaches further."""
    if value is None:
        return
    mark = engine.block_mark(value)
    if mark.block not in blocks or engine.block_mark(blocks[mark.block]).offset < mark.offset:
        blocks[mark.block] = value
