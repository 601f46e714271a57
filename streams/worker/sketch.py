"""`sketch`, live: raw topics to frames in `requests`, unreadable records to the dead-letter topic."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import structlog
from aiokafka import TopicPartition
from faust.types import TP

from detector.frame import RowFrame
from models.reorder import take
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends
from streams.kafka.faust_batches import Batch, Memory
from streams.metrics import Metrics
from streams.sketch.shares import REMEDY, Share, Shares
from streams.sketch.sketcher import Piece, RawRange, Sketcher, SketchResult, chunks, internal, raw_range
from streams.wire import frames
from streams.wire.dead_letter import DeadLetterTopic
from streams.wire.rejects import Record, Reject, dead_letters
from streams.worker.source_clocks import SourceClocks
from streams.worker.stage import StageError

log = structlog.get_logger("probewatch")

LINGER_MS = 100
"""How long the broker may delay a fetch to gather records."""

GATHER_BYTES = 2**20
"""The broker returns a fetch earlier when so much has gathered. Each fetch makes a frame for every model and partition
of `requests`: with 64 kB, ninety records, a row of traffic at 8,000 records/s cost worker and broker a quarter more."""

GATHERED_RECORDS = 20_000
"""Batches of a fetch share their frames: a frame for each model and partition, however many raw partitions there are.
Beyond so many records frames are full anyway."""

GATHERED_BYTES = 8 * 2**20
"""The same, when records are long: what is gathered is sent together, and the rest of a fetch waits for it."""

SLOW_S = 0.03
"""A chunk of ordinary records takes a third of it."""

FETCH_BYTES = 4 * 2**20
"""Most that one fetch brings from one raw partition: behind the log, larger batches make fewer, fuller frames."""


SENT_BYTES = 2**19
"""Bytes of frames sent to a partition as one batch; a single message may be twice as long."""

log = structlog.get_logger("probewatch")


class SketchStage:
    """Stateless: what a record becomes depends on the record. While the frames of one fetch are in flight, the next
    fetch is sketched; it is sent when all of them are acknowledged.

    One batch is in flight for each partition of `requests`, and the first failure ends the worker before anything is
    sent behind it: a gap followed by a success would lie below the judge's marks forever.
    """

    name = "sketch"
    tick_s = 0.2

    def __init__(
        self,
        config: Config,
        features: Features,
        sketcher: Sketcher,
        metrics: Metrics,
        away_s: Callable[[], float] = clients.never_away,
    ) -> None:
        """away_s : of `clients.Producer`."""
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
        self._producer = clients.producer(config, features, topics.dead_letter_bytes(config), SENT_BYTES, away_s=away_s)
        self._dead = DeadLetterTopic(self._producer, config, metrics)
        self._shares = Shares((*config.policy.shared_clients, *config.input.registry))
        self._told: set[tuple[str, str]] = set()
        self._clocks = SourceClocks(metrics)
        self._ends: dict[TP, int] = {}
        self._gathered: list[Batch] = []
        self._gathered_bytes = 0
        self._is_slow = False
        self._faults: set[str] = set()
        self._in_flight: asyncio.Task[None] | None = None

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
        count = (await topics.partition_counts(self._config, [name])).get(name)
        if count != wanted:
            raise StageError(
                f"{name}: expected {wanted} partitions (topics.partitions); got {count or 'no such topic'}"
                " (`probewatch topics create` makes it)"
            )
        await self._producer.start()

    async def stop(self) -> None:
        """Abandon what is in flight."""
        if self._in_flight is not None:
            self._in_flight.cancel()
            await asyncio.gather(self._in_flight, return_exceptions=True)
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Raises StageError if the group has read beyond the end of a log: then the topic was re-created."""
        self._ends = {}
        places = {tp: TopicPartition(tp.topic, tp.partition) for tp in partitions}
        async with clients.reader(self._config, isolation_level="read_uncommitted") as consumer:  # to its very end
            ends = await log_ends(consumer, places.values(), self._features) if places else {}
        for tp, place in places.items():
            offset = committed[tp]
            if offset is not None and offset > ends[place]:
                raise StageError(
                    f"{tp.topic}[{tp.partition}]: the group has read up to {offset}, but the log ends at {ends[place]}:"
                    f" the topic was re-created. {self.remedy}"
                )

    async def process(self, batch: Batch) -> None:
        """Gather a batch; with the last one of a fetch, sketch all of them, and send their frames once those of the
        fetch before are acknowledged. Raises what they failed with."""
        self._gathered.append(batch)
        self._gathered_bytes += sum(len(record.value or b"") for record in batch.records)
        gathered = sum(len(one.records) for one in self._gathered)
        if not batch.more or gathered >= GATHERED_RECORDS or self._gathered_bytes >= GATHERED_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        stretches = [self._stretch(batch) for batch in gathered]
        pieces = []
        for chunk in chunks(stretches):
            pieces.append(await self._piece(chunk))
            await clients.yield_to_io()  # to acknowledgements, other stages and /live
        result = self._sketcher.join(stretches, pieces, self._config.topics.partitions)
        await self._await_sends()
        self._in_flight = asyncio.create_task(self._send(result, gathered))
        await clients.yield_to_io()

    async def _piece(self, chunk: Sequence[RawRange]) -> Piece:
        """In a thread while chunks are slow: somebody sends what is dear to read, and `judge` must not wait for it.
        Ordinary ones are not worth the switching. What a chunk becomes depends on neither."""
        begun = time.perf_counter()
        if self._is_slow:
            piece = await asyncio.to_thread(self._sketcher.piece, chunk)
        else:
            piece = self._sketcher.piece(chunk)
        self._is_slow = time.perf_counter() - begun > SLOW_S
        return piece

    def _stretch(self, batch: Batch) -> RawRange:
        return raw_range(*batch.partition, self._config.input.incarnation, batch.records)

    async def _await_sends(self) -> None:
        """Wait until what is in flight is acknowledged; raises if it is not."""
        if self._in_flight is not None:
            await asyncio.shield(self._in_flight)
            self._in_flight = None

    async def _send(self, result: SketchResult, batches: Sequence[Batch]) -> None:
        by_target = sorted(result.frames, key=lambda frame: frame.partition)
        lost: list[Reject] = []
        async with asyncio.TaskGroup() as sending:
            for target, group in groupby(by_target, lambda frame: frame.partition):
                sending.create_task(self._send_frames(target, list(group), batches, lost))
            sending.create_task(self._send_rejects(result.rejects, batches))
        await self._send_rejects(sorted(lost, key=attrgetter("topic", "partition", "offset", "index")), batches)
        for frame in result.frames:
            if (share := self._shares.add(frame)) is not None:
                self._tell(share)
        for batch in batches:
            self._ends[batch.partition] = batch.end
            self._metrics.records.labels(batch.partition.topic).inc(len(batch.records))
        self._clocks.add(result.frames)
        for reason, rows in result.unjudged.items():
            self._metrics.unjudged.labels(reason).inc(rows)
        for field, count in result.unread.items():
            self._metrics.unread.labels(field).inc(count)

    def _tell(self, share: Share) -> None:
        """The metric always, the log once."""
        self._metrics.largest_share.labels(share.model).set(share.share)
        if share.large and (share.model, share.client) not in self._told:
            self._told.add((share.model, share.client))
            log.warning(
                "one client carries much of a model's traffic", model=share.model, client=share.client,
                share=round(share.share, 3), remedy=REMEDY,
            )  # fmt: skip

    async def _send_frames(
        self, partition: int, group: Sequence[RowFrame], batches: Sequence[Batch], lost: list[Reject]
    ) -> None:
        topic, headers = self._config.topics.requests, [(frames.KIND_HEADER, b"rows")]
        encoded = (message for frame in group for message in self._encoded(frame, batches, lost))
        await self._producer.send_in_order(topic, encoded, partition, headers)
        self._metrics.frames.labels(self.name).inc(len(group))
        self._metrics.rows.labels(self.name).inc(sum(frame.rows.count for frame in group))

    def _encoded(self, frame: RowFrame, batches: Sequence[Batch], lost: list[Reject]) -> Iterator[bytes]:
        """A frame as one message; where that fails its halves, down to the row that is at fault, which `lost` gets."""
        try:
            message = frames.encode(frame)
        except Exception as error:  # as in Sketcher.piece
            rows = frame.rows
            if rows.count == 1:
                of = next(one for one in map(self._stretch, batches) if one.source == rows.source[0])
                lost.append(internal(of, int(rows.offset[0]), int(rows.index[0]), error))
                return
            for half in np.array_split(np.arange(rows.count), 2):
                yield from self._encoded(replace(frame, rows=take(rows, half)), batches, lost)
        else:
            yield message

    async def _send_rejects(self, rejects: Sequence[Reject], batches: Sequence[Batch]) -> None:
        """By raw partition: offsets identify dead letters only within one."""
        for partition, group in groupby(rejects, lambda reject: (reject.topic, reject.partition)):
            refused = list(group)
            self._log_faults(refused)
            offsets = {reject.offset for reject in refused}
            records = {
                r.offset: Record(r.key, r.value, r.headers)
                for batch in batches
                if batch.partition == partition
                for r in batch.records
                if r.offset in offsets
            }
            adapter = self._sketcher.formats.of(partition[0])
            await self._dead.send(dead_letters(refused, records, adapter.elements))

    def _log_faults(self, rejects: Sequence[Reject]) -> None:
        """Each place in the code once."""
        for reject in rejects:
            if reject.reason == "internal" and reject.got not in self._faults:
                self._faults.add(reject.got)
                log.error("a record could not be read: please report this", fault=reject.got, at=reject.message)

    async def tick(self) -> None:
        """Check the last send, and send what was gathered for a fetch whose last batch a rebalance has dropped."""
        if self._gathered:
            await self._flush()
        if self._in_flight is not None and self._in_flight.done():
            await self._await_sends()

    def committable(self) -> Mapping[TP, int]:
        """Only what is acknowledged."""
        return self._ends

    async def release(self) -> None:
        """Send what is gathered, and wait for it; `committable` is called once more."""
        if self._gathered:
            await self._flush()
        await self._await_sends()
