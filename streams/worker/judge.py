"""`judge`, live: frames through the fold, events out, blocks of state to their topic.

The order makes a crash harmless at every point: events acknowledged -> their blocks written -> offset committable. What
is repeated after it has the same ids and the same bytes; what was counted lies below its block's mark.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from detector import engine
from detector.events.finding import LEVELS, Event
from detector.frame import Frame, RowFrame
from models.kernels.layout import block_of
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends
from streams.kafka.faust_batches import Batch, Memory, sticky_assignor
from streams.kafka.topic_ids import topic_ids
from streams.metrics import Metrics
from streams.wire import frames, settings_log
from streams.wire.dead_letter import DeadLetterTopic
from streams.wire.rejects import WHOLE_RECORD, DeadLetter, Record, Reject, dead_letters
from streams.worker.order_watch import OrderWatch
from streams.worker.sink import Sink
from streams.worker.stage import StageError
from streams.worker.state_topic import StateTopic, Stored

TICK_S = 0.1
TICKS_A_ROUND = 300
"""Most slices of a round of block writing, and the shortest time for one. Dumping a block takes milliseconds, in which
nothing is judged: few at a time."""

IDLE_FETCH_MS = 500
POLLING_FETCH_MS = 20
"""On a broker that does not wake waiting fetches, a frame waits this long."""


log = structlog.get_logger("probewatch")


class Span(NamedTuple):
    """A log holds [start, end). log_id : topic id, "" if the broker has none."""

    start: int
    end: int
    log_id: str


class Partition:
    """One partition of `requests`: its state, and which parts of it the state topic does not have yet.

    next : offset of the next frame.
    unwritten : block -> first offset that its record in the state topic lacks.
    writing : the same for blocks whose new record is in flight.
    decided : block -> since when it holds a decision that its record lacks, monotonic s.
    written_at : block -> when it was written last, monotonic s; 0 for a block loaded from the topic.
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
            block = block_of(event.client_key, len(self.state.block_offset))
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
        """The last dumped records of these blocks are acknowledged."""
        for block in blocks:
            self.writing.pop(block, None)
            self.written_at[block] = now

    def goes_on_from(self, committed: int) -> bool:
        """Whether this state is still valid at the group's offset, whoever owned the partition in between.

        A block is a function of the log before its mark, whatever others have written: this state is right up to
        `next`, and lacks nothing unless the group has committed beyond `next`.
        """
        return not self.unwritten and not self.writing and committed <= self.next

    @property
    def committable(self) -> int:
        """A block that no frame changed since it was written would read the frames in between for nothing."""
        return min((*self.unwritten.values(), *self.writing.values()), default=self.next)


def due(partitions: Collection[Partition], before: float, share: float) -> dict[Partition, list[int]]:
    """Blocks to write now: those last written before `before`, longest ago first, and those with a decision that their
    record lacks, oldest first. Of either kind at most `share` of all blocks that ever held anything, so however many
    decisions there are, writing costs at most twice the usual.
    """
    written = [
        (partition.written_at.get(block, 0.0), block, partition)
        for partition in partitions
        for block in partition.written_at.keys() | partition.unwritten.keys()
    ]
    decided = [(since, block, partition) for partition in partitions for block, since in partition.decided.items()]
    stale = [entry for entry in written if entry[0] < before]
    most = math.ceil(share * len(written))
    chosen: dict[Partition, list[int]] = {}
    for _, block, partition in (*_oldest(stale, most), *_oldest(decided, most)):
        if block not in chosen.setdefault(partition, []):
            chosen[partition].append(block)
    return chosen


def _oldest(entries: list[tuple[float, int, Partition]], most: int) -> list[tuple[float, int, Partition]]:
    return sorted(entries, key=lambda entry: (entry[0], entry[2].state.partition, entry[1]))[:most]


class JudgeStage:
    """Stateful by partition; all of it can be rebuilt from the state topic and `requests`."""

    name = "judge"

    def __init__(
        self,
        config: Config,
        features: Features,
        settings: engine.EngineSettings,
        metrics: Metrics,
        away_s: Callable[[], float] = clients.never_away,
    ) -> None:
        """away_s : of `clients.Producer`."""
        self.topics: Sequence[str] = (config.topics.requests,)
        self.memory: Memory | None = None  # the id of the log is stored with each block
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
        self._producer = clients.producer(config, features, topics.state_bytes(config), away_s=away_s)
        self._sink = Sink(self._producer, config.topics, metrics)
        self._state_topic = StateTopic(self._producer, config, features, metrics)
        self._dead = DeadLetterTopic(self._producer, config, metrics)
        self._partitions: dict[TP, Partition] = {}
        self._log_id = ""
        self._order = OrderWatch(metrics)
        self._evicted_logged = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._storing: asyncio.Task[None] | None = None

    @property
    def consumer_arguments(self) -> dict[str, Any]:
        wait_ms = IDLE_FETCH_MS if self._features.wakes_fetches else POLLING_FETCH_MS
        arguments = clients.group_reading(self._config, self._features, fetch_max_wait_ms=wait_ms)
        return arguments | {"partition_assignment_strategy": [sticky_assignor()]}

    async def start(self) -> None:
        """Raises StageError unless both topics have the configured number of partitions."""
        if self._settings.off:
            remedy = "the artefacts have no tables for them: run `probewatch calibrate`"
            log.warning("detectors off", detectors=", ".join(sorted(self._settings.off)), why=remedy)
        names = [self._config.topics.requests, self._config.topics.judge_state]
        counts = await topics.partition_counts(self._config, names)
        wanted = self._config.topics.partitions
        if any(counts.get(name) != wanted for name in names):
            got = ", ".join(f"{name}: {counts.get(name, 'no such topic')}" for name in names)
            raise StageError(
                f"expected {wanted} partitions (topics.partitions) of requests and of its state; got {got}"
                " (`probewatch topics create` makes them)"
            )
        await self._producer.start()

    async def stop(self) -> None:
        """Abandon what is in flight."""
        tasks = [*self._sending, *([self._storing] if self._storing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Load the state of partitions whose state in memory is not valid. If cancelled, the next call starts over.

        Raises StageError if state and log do not belong together, engine.BlockError.
        """
        started, log_id = time.monotonic(), self._log_id
        held = {tp: p for tp, p in self._partitions.items() if tp in committed and p.goes_on_from(committed[tp] or 0)}
        self._partitions = held  # makes room
        stored = await self._state_topic.read([tp.partition for tp in partitions if tp not in held])
        self._metrics.recovery_bytes.set(sum(state.read_bytes for state in stored.values()))
        spans = await self._spans(partitions)
        recovered, due = {}, []
        for tp in partitions:
            if tp in held:
                recovered[tp] = held[tp]
                self._begin(tp, Stored(logs={log_id}), held[tp].next, spans[tp])
                continue
            state = stored.pop(tp.partition)
            recovered[tp] = await self._load(tp, state)
            begin = recovered[tp].next = self._begin(tp, state, committed[tp] or 0, spans[tp])
            due.append(settings_log.due(state.settings, tp.partition, begin, self._settings.provenance))
        await self._state_topic.write_settings([entry for entry in due if entry is not None])
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
                log.warning("damaged record", what=str(error), at=f"{self._config.topics.judge_state}[{tp.partition}]")
                self._metrics.damaged.labels(self._config.topics.judge_state).inc()
                stored.lose(block)
                return await self._load(tp, stored)
            partition.written_at[block] = 0.0
            await asyncio.sleep(0)  # signals and health checks run in between
        return partition

    def _begin(self, tp: TP, stored: Stored, committed: int, span: Span) -> int:
        """Where to begin reading. Raises StageError if the log was re-created, or lacks what the state lacks."""
        name, group = f"{tp.topic}[{tp.partition}]", f"{self._config.kafka.group}-{self.name}"
        reached = max([committed, *stored.marks.values()])
        if reached > span.end or stored.logs - {"", span.log_id}:
            raise StageError(
                f"{name}: the state has reached offset {reached}, but the log ends at {span.end}: the topic was"
                f" re-created. {self.remedy}"
            )
        begin = stored.begin(committed)
        if begin < committed and begin < span.start:
            raise StageError(
                f"{self._config.topics.judge_state}[{tp.partition}]: records of blocks {sorted(stored.damaged)} are"
                f" damaged; without them {name} must be read from {begin}, but begins at {span.start}. To continue"
                f" without that evidence name a new topics.judge_state and reset the offsets of group {group}; a replay"
                " of archived frames shows which decisions are then missing"
            )
        if begin < committed:
            log.warning(
                "state damaged: reading again", at=name, begin=begin, instead=committed, blocks=sorted(stored.damaged)
            )
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
            if isinstance(frame, RowFrame):
                rows += frame.rows.count
                self._order.add(frame)
        if unreadable:
            await self._dead.send(unreadable)
        told = partition.state.breakers.take()
        if events or told:
            self._forget_landed()
            self._sending.add(asyncio.create_task(self._sink.send_all(events, told)))
        partition.next = max(partition.next, batch.end)
        self._metrics.unjudged.labels("unknown_space").inc(partition.state.unjudged - unknown_before)
        self._metrics.frames.labels(self.name).inc(len(batch.records))
        self._metrics.rows.labels(self.name).inc(rows)

    def _forget_landed(self) -> None:
        """Raises the error of a failed send."""
        for task in [task for task in self._sending if task.done()]:
            self._sending.remove(task)
            task.result()

    async def _landed(self) -> None:
        """Wait until all events in flight are acknowledged; raises if one is not."""
        if self._sending:
            await asyncio.wait(self._sending)
        self._forget_landed()

    async def _stored(self) -> None:
        """The same for blocks in flight."""
        if self._storing is not None:
            await asyncio.shield(self._storing)
            self._storing = None

    async def tick(self) -> None:
        """Write each block that has a record once a round, changed or not: that also replaces what a zombie wrote.
        Writes are in flight while the next frames are judged."""
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
            counts["redelivered"] += partition.state.redelivered
            counts["evicted"] += partition.state.evicted
            counts["back"] += partition.state.back
        self._metrics.clients.set(counts["clients"])
        self._metrics.skipped.set(counts["skipped"])
        self._metrics.redelivered.set(counts["redelivered"])
        self._metrics.evicted.set(counts["evicted"])
        self._count_breakers()
        self._log_evictions(counts["evicted"])
        self._order.look(counts["back"])

    def _count_breakers(self) -> None:
        """As the partitions of this worker have heard."""
        states = [partition.state.breakers for partition in self._partitions.values()]
        frames = [frame for state in states for frame in state.opened.values()]
        opened = {(frame.model, level) for frame in frames for level, _, _ in frame.floors}
        for artefact in self._settings.artefacts.models.values():
            for level, name in enumerate(LEVELS[1:], 1):
                self._metrics.breaker_open.labels(artefact.model, name).set((artefact.model, level) in opened)

    def _log_evictions(self, evicted: int) -> None:
        """Whenever they have doubled: a flood of invented clients must not become a flood of log lines."""
        if evicted > 2 * self._evicted_logged:
            self._evicted_logged = evicted
            log.warning("clients evicted for lack of room: raise state.block_bytes", evicted=evicted)

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
                await asyncio.sleep(0)  # yield to other stages
        return values

    async def _store(self, values: Mapping[Partition, Mapping[int, bytes]]) -> None:
        async with (
            asyncio.TaskGroup() as writing
        ):  # in parallel: one after another would wait for as many acknowledgements
            for partition, blocks in values.items():
                writing.create_task(self._state_topic.write(partition.state.partition, blocks, self._log_id))
        for partition, blocks in values.items():
            partition.written(blocks, time.monotonic())

    def committable(self) -> Mapping[TP, int]:
        return {tp: partition.committable for tp, partition in self._partitions.items()}

    async def release(self) -> None:
        await self._landed()
        await self._stored()
        await self._store(await self._dumped({held: sorted(held.unwritten) for held in self._partitions.values()}))
        # Partitions stay until the next acquisition: `committable` is called once more.


def _dead_letter(record: Any, error: frames.FrameError) -> DeadLetter:
    """A message of `requests` that is not a frame becomes a dead letter: it must not stop a judge."""
    position = (record.topic, record.partition, record.offset, WHOLE_RECORD)
    reject = Reject(*position, "record", "a frame (`sketch` writes them) or a control order", str(error), "malformed")
    (letter,) = dead_letters([reject], {record.offset: Record(record.key, record.value, record.headers)}, lambda _: [])
    return letter
