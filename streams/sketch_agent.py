"""`sketch`, live: raw topics to frames in `requests`, what cannot be read to the dead-letter topic."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from aiokafka import TopicPartition
from faust.types import TP

from detector.config import Config
from detector.frame import RowFrame
from streams import clients, frames, topics
from streams.adapters import REGISTRY, Adapter
from streams.batches import Batch, Memory
from streams.dead_letters import DeadLetterTopic
from streams.embedded import Features, log_ends
from streams.metrics import Metrics
from streams.rejects import Record, Reject, dead_letters
from streams.sketch import Sketcher
from streams.stage import StageError

LINGER_MS = 50
"""How long the broker may hold a fetch back to gather records: the frame's linger, at no cost to us."""

GATHER_BYTES = 64 * 2**10
"""A fetch is answered before that when so much has gathered."""

FETCH_BYTES = 4 * 2**20
"""Most that one fetch brings from one raw partition: behind the log, larger batches make fewer, fuller frames."""


class SketchStage:
    """Stateless: what a record becomes depends on the record. Sends everything itself and waits for every send.

    One frame is in flight for each partition of `requests`, and the first that fails ends the worker: a hole followed
    by a success would lie below the judge's marks for ever.
    """

    name = "sketch"
    tick_s = 60.0

    def __init__(
        self, config: Config, features: Features, sketcher: Sketcher, metrics: Metrics, adapter: Adapter = REGISTRY[0]
    ) -> None:
        self.topics: Sequence[str] = config.topics.raw
        self.memory: Memory | None = Memory(TP(config.topics.requests, 0), config.input.incarnation)
        self.remedy = (
            "Set input.incarnation to a new value, so that its offsets are not taken for old ones, and reset the"
            f" offsets of group {config.kafka.group}-{self.name} for it"
        )
        self._config = config
        self._features = features
        self._sketcher = sketcher
        self._metrics = metrics
        self._adapter = adapter
        self._producer = clients.producer(config, features, topics.dead_letter_bytes(config))
        self._dead = DeadLetterTopic(self._producer, config, metrics)
        self._ends: dict[TP, int] = {}

    @property
    def consumer_arguments(self) -> dict[str, Any]:
        return clients.group_reading(
            self._config,
            self._features,
            fetch_max_wait_ms=LINGER_MS,
            fetch_min_bytes=GATHER_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    async def start(self) -> None:
        """Raises StageError if `requests` has another number of partitions than configured: it is fixed for life."""
        wanted, name = self._config.topics.partitions, self._config.topics.requests
        found = (await topics.partition_counts(self._config, [name])).get(name)
        if found != wanted:
            raise StageError(
                f"{name}: expected {wanted} partitions (topics.partitions); got {found or 'no such topic'}"
                " (`probewatch topics create` makes it)"
            )
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Raises StageError if the group has read further than a log reaches: then it is another log."""
        self._ends = {}
        places = {tp: TopicPartition(tp.topic, tp.partition) for tp in partitions}
        async with clients.reader(self._config) as consumer:
            ends = await log_ends(consumer, places.values(), self._features) if places else {}
        for tp, place in places.items():
            offset = committed[tp]
            if offset is not None and offset > ends[place]:
                raise StageError(
                    f"{tp.topic}[{tp.partition}]: the group has read up to {offset}, but the log ends at {ends[place]}:"
                    f" the topic was made anew. {self.remedy}"
                )

    async def process(self, batch: Batch) -> None:
        topic, partition = batch.partition
        incarnation, count = self._config.input.incarnation, self._config.topics.partitions
        result = self._sketcher.frames(topic, partition, incarnation, batch.records, count)
        by_target = sorted(result.frames, key=lambda frame: frame.partition)
        async with asyncio.TaskGroup() as sending:
            for target, group in groupby(by_target, lambda frame: frame.partition):
                sending.create_task(self._send_frames(target, list(group)))
            sending.create_task(self._send_rejects(result.rejects, batch))
        self._ends[batch.partition] = batch.end
        self._metrics.records.labels(topic).inc(len(batch.records))
        for reason, rows in result.unjudged.items():
            self._metrics.unjudged.labels(reason).inc(rows)

    async def _send_frames(self, partition: int, group: Sequence[RowFrame]) -> None:
        for frame in group:
            await self._producer.send_and_wait(
                self._config.topics.requests,
                frames.encode(frame),
                partition=partition,
                headers=[(frames.KIND_HEADER, b"rows")],
            )
            self._metrics.frames.labels(self.name).inc()
            self._metrics.rows.labels(self.name).inc(frame.rows.count)

    async def _send_rejects(self, rejects: Sequence[Reject], batch: Batch) -> None:
        if rejects:
            refused = {reject.offset for reject in rejects}
            records = {r.offset: Record(r.key, r.value, r.headers) for r in batch.records if r.offset in refused}
            await self._dead.send(dead_letters(rejects, records, self._adapter.elements))

    async def tick(self) -> None:
        """Nothing is due by time."""

    def committable(self) -> Mapping[TP, int]:
        return self._ends

    async def release(self) -> None:
        self._ends = {}
