"""What all stages share: one agent over batches, which owns partitions from assignment to revocation.

    rebalance complete -> acquire(partitions) -> process(batch) … tick() … -> release()  <- partitions revoked, or stop
                                                    └ committable() -> committed offsets

All five run one at a time, under one lock: no batch is processed while partitions are assigned or revoked, and
`release` writes the state between two batches. Batches of partitions that are not owned are dropped; the next owner
reads them again. A step that fails, or is cancelled half-way, is the stage's last: its state may be ahead of what the
broker has acknowledged, and must reach neither topics nor offsets.
"""

import asyncio
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from typing import Any, Protocol

import mode
import structlog
from faust.types import TP, StreamT

from streams.kafka.faust_batches import Batch, BatchApp, Memory
from streams.worker import allocator
from streams.worker.watchdog import Wait, WaitTimers

log = structlog.get_logger("probewatch")

SILENT_S = 60.0
"""Faust polls about every second, and the client returns at once."""

REBALANCE_S = 180.0
"""A rebalance waits up to a minute for members that do not respond."""

STEP_S = 300.0
"""Sends time out before that (`clients.DELIVERY_S`)."""


class StageError(RuntimeError):
    """A stage cannot continue. The text says what to do."""


class LostBatchError(RuntimeError):
    """A batch was lost between fetch and stage; continuing would commit records that were never processed."""


class Stage(Protocol):
    """One step of the pipeline, without any knowledge of groups and rebalances.

    StageRunner calls these methods one at a time. Any exception from any of them ends the worker with exit code 1.

    name : of the stage; its consumer group is `<kafka.group>-<name>`.
    topics : what it reads.
    tick_s : interval of `tick`, s.
    memory : where to remember the ids of its topics; None if its own state holds them.
    remedy : what an operator must do if one of the topics was deleted and re-created.

    Example, which prints what it reads::

        class Printer:
            name, topics, tick_s, memory, remedy = "printer", ("requests",), 1.0, None, "Reset the group's offsets"

            async def acquire(self, partitions, committed):
                self._ends = {tp: committed[tp] or 0 for tp in partitions}

            async def process(self, batch):
                print(batch.records)
                self._ends[batch.partition] = batch.end

            def committable(self):
                return self._ends

        StageRunner(Printer(), "group", consumer_arguments)     # start, stop, tick and release may do nothing
    """

    name: str
    topics: Sequence[str]
    tick_s: float
    memory: Memory | None
    remedy: str

    async def start(self) -> None:
        """Open clients. Raises StageError if topics are missing or do not match the configuration."""

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Load the state of exactly these partitions; all others are gone.

        partitions : all that are assigned now, in order.
        committed : the group's offset of each; None if it has none and begins at the oldest record.

        If `committable` is below the committed offset afterwards, the group is set back and reads that part again.
        Cancelled if the next rebalance begins. Raises StageError if state and log do not belong together.
        """

    async def process(self, batch: Batch) -> None:
        """Process a batch.

        batch : consecutive records of one owned partition.

        May return while messages are in flight: `committable` excludes them, and the next call of `process`, `tick` or
        `release` raises if one of them failed.
        """

    async def tick(self) -> None:
        """Work that is due by time, every `tick_s` while partitions are owned. Must not influence decisions."""

    def committable(self) -> Mapping[TP, int]:
        """By partition, the offset below which nothing need be read again."""

    async def release(self) -> None:
        """Flush; the partitions are being revoked. `committable` is called once more afterwards."""

    async def stop(self) -> None:
        """Close clients, abandoning what is in flight."""


class StageRunner:
    """Runs a stage as a Faust agent. failed : future of the first error. log_ends : end offsets, as last seen."""

    def __init__(self, stage: Stage, group: str, consumer_arguments: Mapping[str, Any]) -> None:
        self.stage = stage
        self.app = BatchApp(f"{group}-{stage.name}", consumer_arguments)
        self.failed = self.app.failed
        self.ready = False
        self.log_ends: Mapping[TP, int] = {}
        self._timers = WaitTimers()
        self._polls = 0
        self._step = ""
        self._steps = 0
        self._broken = False
        self._lock = asyncio.Lock()
        self._owned: frozenset[TP] = frozenset()
        self._numbers: dict[TP, int] = {}
        self._acquiring: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.app.agent(
            self.app.batch_topics(stage.topics),
            name=stage.name,
            supervisor_strategy=mode.CrashingSupervisor,
        )(self._consume)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_rebalance_complete.connect(self._on_rebalance_complete)

    @property
    def owned(self) -> frozenset[TP]:
        return self._owned

    async def start(self) -> None:
        """Returns when the first assignment has been acquired."""
        await self.stage.start()
        self._tasks.append(asyncio.create_task(self._ticking()))
        await self.app.start()

    async def stop(self) -> None:
        """Finish the current batch, flush, commit, leave the group."""
        self.ready = False
        if self._acquiring is not None:
            self._acquiring.cancel()
        async with self._lock:
            await self._release()
        await self.abandon()

    async def abandon(self) -> None:
        """Leave the group without writing anything."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await self.app.stop()
        await self.stage.stop()

    def check_topic_ids(self, ids: Mapping[str, str]) -> None:
        """Raises StageError if a topic that is being read has another id. ids : topic -> id, as of now."""
        for topic, known in (self.app.batch_consumer.topic_ids if self.ready else {}).items():
            if ids.get(topic, known) != known:
                raise StageError(
                    f"{topic} was deleted and re-created while {self.stage.name} was reading it. {self.stage.remedy}"
                )

    def reset_deadlines(self) -> None:
        """Kafka was unreachable: restart all timers."""
        self._timers = WaitTimers()

    def overdue(self, waited_s: float) -> str | None:
        """What has taken too long, if anything: Faust may stop reading, or never complete a rebalance.

        waited_s : since the last call. What the event loop slept through meanwhile is not Faust's silence: the first
        frame may wait a minute for the compiler.
        """
        return self._timers.overdue(self._waits(), waited_s)

    def _waits(self) -> dict[Hashable, Wait]:
        """The known ways in which Faust and its client hang."""
        name = self.stage.name
        if self._step == "acquire":
            return {}  # reading state has a timeout of its own
        if self._step:
            text = f"{name}: its step `{self._step}` has not finished for {STEP_S:.0f} s"
            return {"step": Wait(self._steps, STEP_S, text)}
        if not self.ready:
            text = f"{name}: no assignment for {REBALANCE_S:.0f} s: the rebalance does not complete"
            return {"rebalance": Wait(None, REBALANCE_S, text)}
        consumer = self.app.batch_consumer
        polled, self._polls = consumer.polls != self._polls, consumer.polls
        text = f"{name}: Faust has not polled for {SILENT_S:.0f} s: its consumer has stopped"
        waits: dict[Hashable, Wait] = {"polls": Wait(consumer.polls, SILENT_S, text)}
        for tp in self._owned:
            at = consumer.reading_at(tp)
            if (at or 0) < self.log_ends.get(tp, 0):
                text = (
                    f"{name}: {tp.topic}[{tp.partition}]: not read for {SILENT_S:.0f} s although records wait at {at}"
                )
                waits[tp] = Wait(at, SILENT_S, text, counts=polled)
        return waits

    def lag(self) -> dict[TP, int]:
        """Records up to the high watermark of the last fetch that are not processed yet, by partition."""
        consumer, done = self.app.batch_consumer, self.stage.committable()
        ends = {tp: consumer.highwater(tp) for tp in self._owned}
        return {tp: max(0, end - done[tp]) for tp, end in ends.items() if end is not None and tp in done}

    async def _consume(self, stream: StreamT[Any]) -> None:
        async for batch in stream:
            async with self._lock:
                if batch.partition in self._owned:
                    self._check_number(batch)
                    await self._last_if_it_fails("process", self.stage.process(batch))
                    self._mark()

    def _check_number(self, batch: Batch) -> None:
        """Batch 0 follows a seek to the committed offset: nothing can be missing before it."""
        expected = self._numbers.get(batch.partition, 0)
        if batch.number not in (0, expected):
            raise LostBatchError(f"{batch.partition}: expected batch {expected}; got {batch.number}")
        self._numbers[batch.partition] = batch.number + 1

    async def _last_if_it_fails(self, name: str, step: Coroutine[Any, Any, None]) -> None:
        """Run one step of the stage. After a failed or cancelled one nothing is owned and nothing is done."""
        self._step, self._steps = name, self._steps + 1
        try:
            await step
        except BaseException:
            self._broken, self._owned, self.ready = True, frozenset(), False
            raise
        finally:
            self._step = ""

    def _mark(self) -> None:
        for partition, offset in self.stage.committable().items():
            self.app.batch_consumer.done(partition, offset)

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(self.stage.tick_s)
            async with self._lock:
                if self._owned:
                    try:
                        await self._last_if_it_fails("tick", self.stage.tick())
                    except Exception as error:  # nobody awaits this task
                        self.app.fail(error)
                        return
                    self._mark()

    async def _on_rebalance_complete(self, *_: Any, **__: Any) -> None:
        """Faust awaits this before it seeks and reads."""
        partitions = sorted(self.app.batch_consumer.assignment())
        async with self._lock:
            if self._broken:
                return
            try:
                self._owned = frozenset(partitions if await self._acquire(partitions) else ())
            except Exception as error:
                self.app.fail(error)
                raise
            finally:
                if self._acquiring is not None:
                    self._acquiring.cancel()
                self._step, self._acquiring = "", None
                allocator.release_memory()
            self._numbers = {}
            self.ready = bool(self._owned) or not partitions

    async def _acquire(self, partitions: Sequence[TP]) -> bool:
        """False if the next rebalance has begun."""
        consumer = self.app.batch_consumer
        consumer.memory = self.stage.memory
        offsets, recreated, expired = await consumer.group_offsets(partitions, self.stage.topics)
        if recreated:
            topics = ", ".join(sorted(recreated))
            raise StageError(f"{topics} was deleted and re-created under its old name. {self.stage.remedy}")
        for tp, records in expired.items():
            at = f"{tp.topic}[{tp.partition}]"
            log.error(
                "records lost: retention deleted them before they were read",
                records=records,
                at=at,
                stage=self.stage.name,
            )
        committed = {tp: offsets.get(tp) for tp in partitions}
        self._step = "acquire"
        self._acquiring = asyncio.create_task(self.stage.acquire(partitions, committed))
        await asyncio.wait([self._acquiring])
        if self._acquiring.cancelled():
            return False
        self._acquiring.result()
        begin = self.stage.committable()
        back = {tp: begin[tp] for tp, offset in offsets.items() if begin.get(tp, offset) < offset}
        return not back or await consumer.set_back(back)

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self.ready = False
        if self._acquiring is not None:
            self._acquiring.cancel()
        async with self._lock:
            await self._release()

    async def _release(self) -> None:
        if self._owned:
            await self._last_if_it_fails("release", self.stage.release())
            self._mark()
            await self.app.consumer.commit()
            self._owned = frozenset()
