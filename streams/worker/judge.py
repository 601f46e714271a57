"""`judge`, live: frames through the fold, events out, blocks of state to their topic.

The order makes a crash harmless at every point: events acknowledged -> their blocks written -> offset committable. What
is repeated after it has the same ids and the same bytes; what was counted lies below its block's mark.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from detector import engine
from detector.events.finding import Event
from detector.frame import Frame, RowFrame
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends
from streams.kafka.faust_batches import Batch, Memory, sticky_assignor
from streams.kafka.topic_ids import topic_ids
from streams.metrics import Metrics
from streams.wire import frames, settings_log
from streams.wire.dead_letter import DeadLetterTopic
from streams.wire.rejects import WHOLE_RECORD, DeadLetter, Record, Reject, dead_letters
from streams.worker.sink import Sink
from streams.worker.stage import StageError
from streams.worker.state_topic import StateTopic, Stored

TICK_S = 0.1
TICKS_A_ROUND = 300
"""Most slices that a round of block writing is cut into, and the shortest time for one. A block takes milliseconds, in
which nothing is judged: few at a time."""

IDLE_FETCH_MS = 500
POLLING_FETCH_MS = 20
"""On a broker whose waiting fetches are not woken, the wait is what a frame waits."""


log = structlog.get_logger("probewatch")


class Span(NamedTuple):
    """What there is of a log: [start, end). log_id : of the topic's incarnation, "" if nobody tells."""

    start: int
    end: int
    log_id: str


class Partition:
    """One partition of `requests`: its state, and what of it the state topic does not have yet.

    next : offset of the next frame. unwritten, writing : block -> first offset that its record in the state topic
    lacks; of the latter a new record is on its way. decided : block -> since when it holds a decision that its record
    lacks. written_at : block -> when it was written last, 0 for a block loaded from the topic. Both monotonic s.
    """

    def __init__(self, state: engine.PartitionState) -> None:
        self.state = state
        self.next = 0
        self.unwritten: dict[int, int] = {}
        self.writing: dict[int, int] = {}
        self.decided: dict[int, float] = {}
        self.written_at: dict[int, float] = {}

    def step(self, frame: Frame) -> list[Event]:
        events = engine.step(self.state, frame)
        for block in self.state.dirty:
            self.unwritten.setdefault(block, frame.offset)
        for event in events:
            block = event.client_key % len(self.state.block_offset)
            self.decided.setdefault(block, time.monotonic())
            self.unwritten.setdefault(block, frame.offset)  # so that nothing is committable behind it before it is sent
        return events

    def dump(self, block: int) -> bytes:
        """The block's new record. Only when every event so far is acknowledged."""
        if block in self.unwritten:
            self.writing[block] = self.unwritten.pop(block)
        self.decided.pop(block, None)
        return engine.dump_block(self.state, block)

    def written(self, blocks: Iterable[int], now: float) -> None:
        """What was dumped last is acknowledged."""
        for block in blocks:
            self.writing.pop(block, None)
            self.written_at[block] = now

    def goes_on_from(self, committed: int) -> bool:
        """Whether this state is still good where the group stands now, whoever had the partition in between.

        A block is a function of the log before its mark. So others may have written what they like: what is folded here
        is right up to `next`, and nothing from `committed` on is missing. Only behind `next` something would be.
        """
        return not self.unwritten and not self.writing and committed <= self.next

    @property
    def committable(self) -> int:
        """A block that no frame changed since it was written would read the frames in between for nothing."""
        return min((*self.unwritten.values(), *self.writing.values()), default=self.next)


def due(partitions: Collection[Partition], before: float, share: float) -> dict[Partition, list[int]]:
    """Blocks to write now: those last written before `before`, longest ago first, and those with a decision that their
    record lacks, oldest first. Of either kind at most `share` of all blocks that ever held anything: however many
    clients are decided about, writing costs no more than twice of what it always does.
    """
    known = [
        (one.written_at.get(block, 0.0), block, one)
        for one in partitions
        for block in one.written_at.keys() | one.unwritten.keys()
    ]
    decided = [(since, block, one) for one in partitions for block, since in one.decided.items()]
    stale = [place for place in known if place[0] < before]
    most = math.ceil(share * len(known))
    chosen: dict[Partition, list[int]] = {}
    for _, block, one in (*_oldest(stale, most), *_oldest(decided, most)):
        if block not in chosen.setdefault(one, []):
            chosen[one].append(block)
    return chosen


def _oldest(places: list[tuple[float, int, Partition]], most: int) -> list[tuple[float, int, Partition]]:
    return sorted(places, key=lambda place: (place[0], place[2].state.partition, place[1]))[:most]


class JudgeStage:
    """Stateful by partition; all of it can be rebuilt from the state topic and `requests`."""

    name = "judge"

    def __init__(self, config: Config, features: Features, settings: engine.EngineSettings, metrics: Metrics) -> None:
        self.topics: Sequence[str] = (config.topics.requests,)
        self.memory: Memory | None = None  # blocks tell of which log they are
        self.remedy = (
            f"Name a new topics.judge_state and reset the offsets of group {config.kafka.group}-{self.name}, or"
            " name a new topics.requests"
        )
        self._ticks = max(1, min(TICKS_A_ROUND, int(config.state.round_s / TICK_S)))
        self.tick_s = config.state.round_s / self._ticks
        self._config = config
        self._features = features
        self._settings = settings
        self._metrics = metrics
        self._producer = clients.producer(config, features, topics.state_bytes(config))
        self._sink = Sink(self._producer, config.topics, metrics)
        self._state_topic = StateTopic(self._producer, config, features, metrics)
        self._dead = DeadLetterTopic(self._producer, config, metrics)
        self._partitions: dict[TP, Partition] = {}
        self._log_id = ""
        self._evicted_told = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._storing: asyncio.Task[None] | None = None

    @property
    def consumer_arguments(self) -> dict[str, Any]:
        wait_ms = IDLE_FETCH_MS if self._features.wakes_fetches else POLLING_FETCH_MS
        arguments = clients.group_reading(self._config, self._features, fetch_max_wait_ms=wait_ms)
        return arguments | {"partition_assignment_strategy": [sticky_assignor()]}

    async def start(self) -> None:
        """Raises StageError unless the two topics go together."""
        if self._settings.off:
            remedy = "the artefacts have no tables for them: run `probewatch calibrate`"
            log.warning("detectors off", detectors=", ".join(sorted(self._settings.off)), why=remedy)
        names = [self._config.topics.requests, self._config.topics.judge_state]
        found = await topics.partition_counts(self._config, names)
        wanted = self._config.topics.partitions
        if any(found.get(name) != wanted for name in names):
            told = ", ".join(f"{name}: {found.get(name, 'no such topic')}" for name in names)
            raise StageError(
                f"expected {wanted} partitions (topics.partitions) of requests and of its state; got {told}"
                " (`probewatch topics create` makes them)"
            )
        await self._producer.start()

    async def stop(self) -> None:
        """Abandon what is still on its way."""
        tasks = [*self._sending, *([self._storing] if self._storing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Rebuild the state, where what is in memory does not go on. If cut off, the next call begins anew.

        Raises StageError if state and log do not go together, engine.BlockError.
        """
        started, log_id = time.monotonic(), self._log_id
        held = {tp: p for tp, p in self._partitions.items() if tp in committed and p.goes_on_from(committed[tp] or 0)}
        self._partitions = held  # makes room
        stored = await self._state_topic.read([tp.partition for tp in partitions if tp not in held])
        self._metrics.recovery_bytes.set(sum(one.read_bytes for one in stored.values()))
        spans = await self._spans(partitions)
        recovered, due = {}, []
        for tp in partitions:
            if tp in held:
                recovered[tp] = held[tp]
                self._begin(tp, Stored(logs={log_id}), held[tp].next, spans[tp])
                continue
            found = stored.pop(tp.partition)
            recovered[tp] = await self._load(tp, found)
            begin = recovered[tp].next = self._begin(tp, found, committed[tp] or 0, spans[tp])
            due.append(settings_log.due(found.settings, tp.partition, begin, self._settings.provenance))
        await self._state_topic.write_settings([one for one in due if one is not None])
        self._partitions = recovered
        self._metrics.kept.set(len(held))
        self._metrics.recovery_s.set(time.monotonic() - started)
        self._metrics.clients.set(sum(p.state.clients for p in recovered.values()))

    async def _load(self, tp: TP, stored: Stored) -> Partition:
        partition = Partition(engine.open_partition(self._settings, tp.partition))
        for block, value in sorted(stored.blocks.items()):
            try:
                engine.load_block(partition.state, value)
            except engine.DamagedBlockError as error:  # written so: its checksum is right
                log.warning("damaged", what=str(error), at=f"{self._config.topics.judge_state}[{tp.partition}]")
                self._metrics.damaged.labels(self._config.topics.judge_state).inc()
                stored.lose(block)
                return await self._load(tp, stored)
            partition.written_at[block] = 0.0
            await asyncio.sleep(0)  # loading is work; signals and health checks come in between
        return partition

    def _begin(self, tp: TP, stored: Stored, committed: int, span: Span) -> int:
        """Where to go on reading. Raises StageError if the log is another, or lacks what the state lacks."""
        name, group = f"{tp.topic}[{tp.partition}]", f"{self._config.kafka.group}-{self.name}"
        reached = max([committed, *stored.marks.values()])
        if reached > span.end or stored.logs - {"", span.log_id}:
            raise StageError(
                f"{name}: the state has reached offset {reached}, and the log ends at {span.end}: the topic was made"
                f" anew. {self.remedy}"
            )
        begin = stored.begin(committed)
        if begin < committed and begin < span.start:
            raise StageError(
                f"{self._config.topics.judge_state}[{tp.partition}]: records of blocks {sorted(stored.damaged)} are"
                f" damaged; without them {name} must be read from {begin}, but begins at {span.start}. To go on without"
                f" that evidence name a new topics.judge_state and reset the offsets of group {group}; a replay of"
                " archived frames says what goes unsaid"
            )
        if begin < committed:
            log.warning("reading again", at=name, begin=begin, instead=committed, blocks=sorted(stored.damaged))
        return begin

    async def _spans(self, partitions: Sequence[TP]) -> dict[TP, Span]:
        if not partitions:
            return {}
        places = {tp: TopicPartition(tp.topic, tp.partition) for tp in partitions}
        async with clients.reader(self._config) as consumer:
            ids = await topic_ids(consumer._client, {tp.topic for tp in partitions})
            starts = await consumer.beginning_offsets(list(places.values()))
            ends = await log_ends(consumer, places.values(), self._features)
        self._log_id = ids.get(self.topics[0], "")
        return {tp: Span(starts[place], ends[place], self._log_id) for tp, place in places.items()}

    async def process(self, batch: Batch) -> None:
        partition = self._partitions[batch.partition]
        unknown_before = partition.state.unjudged
        events: list[Event] = []
        unreadable: list[DeadLetter] = []
        rows = 0
        for record in batch.records:
            try:
                frame = frames.decode(record.value or b"", record.partition, record.offset)
            except frames.FrameError as error:
                unreadable.append(_dead_letter(record, error))
                continue
            events += partition.step(frame)
            rows += frame.rows.count if isinstance(frame, RowFrame) else 0
        await self._dead.send(unreadable)
        if events:
            self._forget_landed()
            self._sending.add(asyncio.create_task(self._sink.send(events)))
        partition.next = max(partition.next, batch.end)
        self._metrics.unjudged.labels("unknown_space").inc(partition.state.unjudged - unknown_before)
        self._metrics.frames.labels(self.name).inc(len(batch.records))
        self._metrics.rows.labels(self.name).inc(rows)

    def _forget_landed(self) -> None:
        """Raises what events on their way failed with."""
        for task in [task for task in self._sending if task.done()]:
            self._sending.remove(task)
            task.result()

    async def _landed(self) -> None:
        """Wait until the events on their way are acknowledged; raises if one is not."""
        if self._sending:
            await asyncio.wait(self._sending)
        self._forget_landed()

    async def _stored(self) -> None:
        """The same for the blocks on their way."""
        if self._storing is not None:
            await asyncio.shield(self._storing)
            self._storing = None

    async def tick(self) -> None:
        """Each block that has a record is written once a round, changed or not: that also mends what a zombie wrote.
        They travel while the next frames are judged."""
        await self._landed()
        await self._stored()
        before = time.monotonic() - self._config.state.round_s + self.tick_s / 2
        if blocks := due(self._partitions.values(), before, 1 / self._ticks):
            self._storing = asyncio.create_task(self._store(await self._dumped(blocks)))
        self._count()

    def _count(self) -> None:
        counts: dict[str, int] = defaultdict(int)
        for partition in self._partitions.values():
            counts["clients"] += partition.state.clients
            counts["skipped"] += partition.state.skipped
            counts["evicted"] += partition.state.evicted
        self._metrics.clients.set(counts["clients"])
        self._metrics.skipped.set(counts["skipped"])
        self._metrics.evicted.set(counts["evicted"])
        self._tell_evictions(counts["evicted"])

    def _tell_evictions(self, evicted: int) -> None:
        """Whenever they have doubled: a flood of invented clients must not become one of log lines."""
        if evicted > 2 * self._evicted_told:
            self._evicted_told = evicted
            log.warning("clients left for want of room: raise state.block_bytes", evicted=evicted)

    async def _dumped(self, blocks: Mapping[Partition, Iterable[int]]) -> dict[Partition, dict[int, bytes]]:
        values: dict[Partition, dict[int, bytes]] = {}
        most = topics.state_bytes(self._config)
        for partition, numbers in blocks.items():
            values[partition] = {}
            for block in numbers:
                value = values[partition][block] = partition.dump(block)
                if len(value) > most:
                    raise StageError(
                        f"block {block} takes {len(value)} bytes; a message holds {most} (state.block_bytes)"
                    )
                await asyncio.sleep(0)  # others have their turn
        return values

    async def _store(self, values: Mapping[Partition, Mapping[int, bytes]]) -> None:
        async with asyncio.TaskGroup() as writing:  # one after another would wait for as many answers
            for partition, blocks in values.items():
                writing.create_task(self._state_topic.write(partition.state.partition, blocks, self._log_id))
        for partition, blocks in values.items():
            partition.written(blocks, time.monotonic())

    def committable(self) -> Mapping[TP, int]:
        return {tp: partition.committable for tp, partition in self._partitions.items()}

    async def release(self) -> None:
        await self._landed()
        await self._stored()
        await self._store(await self._dumped({one: sorted(one.unwritten) for one in self._partitions.values()}))
        # Not forgotten before the next acquisition: `committable` is asked once more.


def _dead_letter(record: Any, error: frames.FrameError) -> DeadLetter:
    """A message of `requests` that is no frame: whoever wrote it must not be able to stop a judge."""
    place = (record.topic, record.partition, record.offset, WHOLE_RECORD)
    reject = Reject(*place, "record", "a frame (`sketch` writes them) or a control order", str(error), "malformed")
    (letter,) = dead_letters([reject], {record.offset: Record(record.key, record.value, record.headers)}, lambda _: [])
    return letter
