"""`link`, live: frames through the fold of drift, records and alerts out, the population's shift back into `requests`.

One member of the group owns every partition, since a window is complete only with all of them; the others stand by.
When event time has passed a window it says so in every partition of `requests`, and closes the window when it meets its
own word there: so that where a row was too late stands in the log. The order makes a crash harmless: events and shifts
acknowledged -> state written -> offsets committable. What is repeated after it has the same ids and the same bytes.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import river.drift  # noqa: F401  # takes seconds, which the first windows with a baseline would otherwise wait
import structlog
from aiokafka import TopicPartition
from faust.types import TP

from detector.drift import fold as drift
from detector.frame import CloseFrame, Frame, ShiftFrame
from models.artefacts.store import Artefacts
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends
from streams.kafka.faust_batches import Batch, Memory, SoleAssignor
from streams.kafka.topic_ids import topic_ids
from streams.metrics import Metrics
from streams.wire import frames
from streams.worker.sink import Sink
from streams.worker.stage import StageError
from streams.worker.state_topic import LOG_HEADER, read_log

FETCH_WAIT_MS = 500
GATHER_BYTES = 2**18
"""Windows are minutes long: frames are fetched together, not one by one as they come."""

FRAMES_A_TURN = 16
"""Then other stages of the process have theirs."""

STATE_KEY = b"link"

log = structlog.get_logger("probewatch")


@dataclass(slots=True)
class _Stored:
    """values : whole states. damaged : how many records are none. logs : topic ids that their offsets belong to.
    starts : where `requests` begins, by partition.
    """

    values: list[bytes] = field(default_factory=list)
    damaged: int = 0
    logs: set[str] = field(default_factory=set)
    starts: dict[int, int] = field(default_factory=dict)


class LinkStage:
    """State of all partitions in one record of its own topic; all of it can be rebuilt from there and `requests`."""

    name = "link"

    def __init__(self, config: Config, features: Features, artefacts: Artefacts, metrics: Metrics) -> None:
        self.topics: Sequence[str] = (config.topics.requests,)
        self.memory: Memory | None = None  # the state tells of which log it is
        self.remedy = (
            f"Name a new topics.link_state and reset the offsets of group {config.kafka.group}-{self.name}, or"
            " name a new topics.requests"
        )
        self.tick_s = config.state.round_s
        self._config = config
        self._features = features
        self._settings = drift.Settings.of(config, artefacts)
        self._metrics = metrics
        self._producer = clients.producer(config, features, topics.state_bytes(config))
        self._sink = Sink(self._producer, config.topics, metrics)
        self._state = drift.LinkState(self._settings)
        self._owned: dict[TP, int] = {}  # -> offset that is safe
        self._ends: dict[int, int] = {}
        self._asked_ms: int | None = None
        self._log_id = ""

    @property
    def consumer_arguments(self) -> dict[str, Any]:
        arguments = clients.group_reading(
            self._config, self._features, fetch_max_wait_ms=FETCH_WAIT_MS, fetch_min_bytes=GATHER_BYTES
        )
        return arguments | {"partition_assignment_strategy": [SoleAssignor]}

    async def start(self) -> None:
        """Raises StageError if a topic is missing or `requests` has other partitions than configured."""
        names = [self._config.topics.requests, self._config.topics.link_state, self._config.topics.drift]
        found = await topics.partition_counts(self._config, names)
        if missing := [name for name in names if name not in found]:
            raise StageError(f"no such topic: {', '.join(missing)} (`probewatch topics create` makes them)")
        if found[names[0]] != (wanted := self._config.topics.partitions):
            raise StageError(f"{names[0]}: expected {wanted} partitions (topics.partitions); got {found[names[0]]}")
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Read the state, or stand by without partitions. Raises StageError, drift.StateError."""
        self._owned, self._state, self._ends, self._asked_ms = {}, drift.LinkState(self._settings), {}, None
        if not partitions:
            return
        if len(partitions) != self._config.topics.partitions:
            raise StageError(
                f"{len(partitions)} of {self._config.topics.partitions} partitions; link needs all of them"
            )
        stored = await self._read(partitions)
        begin = {tp.partition: committed[tp] or 0 for tp in partitions}
        if stored.values or stored.damaged:
            self._state, begin = self._load(stored, begin)
        self._owned = {tp: begin[tp.partition] for tp in partitions}

    def _load(self, stored: _Stored, begin: dict[int, int]) -> tuple[drift.LinkState, dict[int, int]]:
        """The state, and where to go on reading: below the committed offsets if what has come further is damaged."""
        value = _furthest(stored.values, begin)
        if value is None and stored.damaged:
            value = _furthest(stored.values, {})
            reached = drift.reached(value) if value is not None else {}
            again = {partition: min(offset, reached.get(partition, 0)) for partition, offset in begin.items()}
            if all(again[n] == begin[n] or again[n] >= stored.starts[n] for n in again):
                log.warning("reading again", topic=self.topics[0], begin=again, instead=begin)
                return (drift.load(self._settings, value) if value is not None else self._state), again
            value = None
        if value is None:
            raise StageError(
                f"{self._config.topics.link_state} is behind the offsets of group"
                f" {self._config.kafka.group}-{self.name}: reset them, or name a new topics.link_state"
            )
        state = drift.load(self._settings, value)
        for partition, offset in state.next.items():
            if offset > (end := self._ends.get(partition, 0)) or stored.logs - {"", self._log_id}:
                raise StageError(
                    f"{self.topics[0]}[{partition}]: the state has reached offset {offset}, and the log ends at"
                    f" {end}: the topic was made anew. {self.remedy}"
                )
        return state, begin

    async def _read(self, partitions: Sequence[TP]) -> _Stored:
        """Every stored state, and what there is of `requests`."""
        topic, logs = self._config.topics.link_state, [TopicPartition(*tp) for tp in partitions]
        most = topics.state_bytes(self._config) + clients.FRAMING_BYTES
        stored = _Stored()
        async with clients.reader(self._config, max_partition_fetch_bytes=most, fetch_max_bytes=most) as consumer:
            self._log_id = (await topic_ids(consumer._client, self.topics)).get(self.topics[0], "")
            ends = await log_ends(consumer, logs, self._features)
            starts = await consumer.beginning_offsets(logs)
            self._ends = {place.partition: ends[place] for place in logs}
            stored.starts = {place.partition: starts[place] for place in logs}
            async for record in read_log(consumer, [TopicPartition(topic, 0)], self._features):
                try:
                    drift.reached(record.value or b"")
                except drift.DamagedStateError as error:
                    stored.damaged += 1
                    self._metrics.damaged.labels(topic).inc()
                    log.warning("damaged", what=str(error), at=f"{topic}[0]@{record.offset}")
                else:
                    stored.values.append(record.value)
                    stored.logs.add(dict(record.headers).get(LOG_HEADER, b"").decode(errors="replace"))
        return stored

    async def process(self, batch: Batch) -> None:
        rows = 0
        for start in range(0, len(batch.records), FRAMES_A_TURN):
            rows += drift.step_all(self._state, _decoded(batch.records[start : start + FRAMES_A_TURN]))
            await asyncio.sleep(0)
        self._state.next[batch.partition.partition] = max(batch.end, self._state.next.get(batch.partition.partition, 0))
        self._metrics.frames.labels(self.name).inc(len(batch.records))
        self._metrics.rows.labels(self.name).inc(rows)
        self._metrics.late.set(self._state.late)
        await self._close()

    def _behind(self) -> set[int]:
        """Partitions that were not yet read to the end that they had at first: the others wait for them."""
        return {partition for partition, end in self._ends.items() if self._state.next.get(partition, 0) < end}

    async def _close(self) -> None:
        until_ms = drift.due(self._state, self._behind())
        if until_ms is not None and (self._asked_ms is None or until_ms > self._asked_ms):
            self._asked_ms = until_ms
            await self._spread(CloseFrame(-1, -1, until_ms))
        closed = drift.close(self._state)
        self._metrics.windows.inc(closed.windows)
        newest = {shift.space: shift for shift in closed.shifts}
        if closed.events or newest:
            await asyncio.gather(
                self._sink.send(closed.events), *(self._spread(newest[name]) for name in sorted(newest))
            )
            await self._write()

    async def _spread(self, frame: ShiftFrame | CloseFrame) -> None:
        """Into every partition of `requests`, where a replay meets it again."""
        value, headers = frames.encode_control(frame), [("probewatch-kind", b"control")]
        topic, count = self._config.topics.requests, self._config.topics.partitions
        sent = [await self._producer.send(topic, value, partition=n, headers=headers) for n in range(count)]
        await asyncio.gather(*sent)

    async def tick(self) -> None:
        """Once a round, changed or not: that also mends what a zombie wrote. Not before a backlog has been read: all of
        its windows are still open, and the former state with its offsets is good.
        """
        if not self._behind():
            await self._write()

    async def _write(self) -> None:
        if not self._owned:
            return
        value = drift.dump(self._state)
        if len(value) > (most := topics.state_bytes(self._config)):
            raise StageError(f"the state takes {len(value)} bytes; a message holds {most} (state.block_bytes)")
        headers = [(LOG_HEADER, self._log_id.encode())]
        await self._producer.send_and_wait(
            self._config.topics.link_state, value, key=STATE_KEY, partition=0, headers=headers
        )
        self._owned = {tp: max(safe, self._state.next.get(tp.partition, 0)) for tp, safe in self._owned.items()}

    def committable(self) -> Mapping[TP, int]:
        return dict(self._owned)

    async def release(self) -> None:
        if not self._behind():
            await self._write()


def _decoded(records: Sequence[Any]) -> Iterator[Frame]:
    """Without those that are none: judge makes dead letters of them."""
    for record in records:
        with contextlib.suppress(frames.FrameError):
            yield frames.decode(record.value or b"", record.partition, record.offset)


def _furthest(stored: Sequence[bytes], begin: Mapping[int, int]) -> bytes | None:
    """Of the states that lack nothing before where reading begins, the one that has read most.

    Not the last record: a stalled member that wakes may have written an old state behind a newer one.
    """
    best, most = None, -1
    for value in stored:
        reached = drift.reached(value)
        total = sum(reached.values())
        if total > most and all(reached.get(partition, 0) >= offset for partition, offset in begin.items()):
            best, most = value, total
    return best
