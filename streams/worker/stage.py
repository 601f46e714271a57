"""What `sketch` and `judge` share: one agent over batches, owning partitions between assignment and revocation.

    rebalance complete -> acquire(partitions) -> process(batch) … tick() … -> release()  <- partitions revoked, or stop
                                                    └ committable() -> committed offsets

All five run one at a time, under one lock: no batch is processed while partitions come or go, and what `release` writes
is the state between two batches. Batches of partitions that are not owned are dropped; the next owner reads them again.
A step that fails, or is cut off half-way, is the stage's last: what it holds may be ahead of what the broker has
acknowledged, and must reach neither topics nor offsets.
"""

import asyncio
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from typing import Any, Protocol

import mode
import structlog
from faust.types import TP, StreamT

from streams.kafka.faust_batches import Batch, BatchApp, Memory
from streams.worker import allocator
from streams.worker.watchdog import Wait, Waits

log = structlog.get_logger("probewatch")

SILENT_S = 60.0
"""Faust asks for records about every second, and whatever it asks for comes at once."""

REBALANCE_S = 180.0
"""A rebalance waits up to a minute for members that do not answer."""

STEP_S = 300.0
"""Sends end themselves before that (`clients.DELIVERY_S`)."""


class StageError(RuntimeError):
    """A stage cannot go on, and what to do about it."""


class LostBatchError(RuntimeError):
    """A batch was lost between fetch and stage; going on would commit what was never handled."""


class Stage(Protocol):
    """One step of the pipeline, without any knowledge of groups and rebalances.

    Whatever fails raises, and ends the worker. tick_s : how often `tick` wants to be called, s. memory : where to keep
    the ids of its topics, if its own state does not. remedy : what to do if one of them was made anew.
    """

    name: str
    topics: Sequence[str]
    tick_s: float
    memory: Memory | None
    remedy: str

    async def start(self) -> None:
        """Open clients."""

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Get ready for exactly these partitions. committed : where the group will begin to read, None if anew.

        What is committable then may lie below: the group is put back there, and reads that part again.
        """

    async def process(self, batch: Batch) -> None:
        """Handle a batch. What it causes may still travel when this returns: `committable` waits for acknowledgements,
        and a failure is raised by the next call of `process`, `tick` or `release`."""

    async def tick(self) -> None:
        """Work that is due by time. Must not change what will be decided."""

    def committable(self) -> Mapping[TP, int]:
        """Everything below these offsets need never be read again."""

    async def release(self) -> None:
        """Write what is not yet written; the partitions go."""

    async def stop(self) -> None:
        """Close clients."""


class StageRunner:
    """Runs a stage as a Faust agent. `failed` gets the first error."""

    def __init__(self, stage: Stage, group: str, consumer_arguments: Mapping[str, Any]) -> None:
        self.stage = stage
        self.app = BatchApp(f"{group}-{stage.name}", consumer_arguments)
        self.failed = self.app.failed
        self.ready = False
        self._waits = Waits()
        self._ends: Mapping[TP, int] = {}
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
        """Finish the batch in work, write, commit, leave the group."""
        self.ready = False
        if self._acquiring is not None:
            self._acquiring.cancel()
        async with self._lock:
            await self._give_back()
        await self.abandon()

    async def abandon(self) -> None:
        """Leave the group without writing anything more."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await self.app.stop()
        await self.stage.stop()

    def seen(self, ids: Mapping[str, str], ends: Mapping[TP, int]) -> None:
        """What the broker tells somebody else. Raises StageError if a topic is not the one that is being read."""
        self._ends = ends
        for topic, known in (self.app.batch_consumer.topic_ids if self.ready else {}).items():
            if ids.get(topic, known) != known:
                raise StageError(f"{topic} was made anew while {self.stage.name} read it. {self.stage.remedy}")

    def reset_deadlines(self) -> None:
        """Nothing was to be had meanwhile: whatever is waited for is waited for anew."""
        self._waits = Waits()

    def overdue(self, waited_s: float) -> str | None:
        """What has been waited for too long, if anything: Faust may stop reading, or never end a rebalance.

        waited_s : since the last call. What the event loop slept through meanwhile is not Faust's silence: the first
        frame may wait a minute for the compiler.
        """
        return self._waits.over(self._waited_for(), waited_s)

    def _waited_for(self) -> dict[Hashable, Wait]:
        """Faust's and its client's known troubles: each is a wait that does not end."""
        name = self.stage.name
        if self._step == "acquire":
            return {}  # whatever reads there watches over itself
        if self._step:
            text = f"{name}: its step `{self._step}` has not come to an end for {STEP_S:.0f} s"
            return {"step": Wait(self._steps, STEP_S, text)}
        if not self.ready:
            text = f"{name}: no assignment for {REBALANCE_S:.0f} s: a rebalance that does not end"
            return {"rebalance": Wait(None, REBALANCE_S, text)}
        consumer = self.app.batch_consumer
        polled, self._polls = consumer.polls != self._polls, consumer.polls
        text = f"{name}: Faust has not asked for records for {SILENT_S:.0f} s: its consumer has stopped"
        waits: dict[Hashable, Wait] = {"polls": Wait(consumer.polls, SILENT_S, text)}
        for tp in self._owned:
            at = consumer.reading_at(tp)
            if (at or 0) < self._ends.get(tp, 0):
                text = (
                    f"{name}: {tp.topic}[{tp.partition}]: records wait at {at}, and for {SILENT_S:.0f} s none has come"
                )
                waits[tp] = Wait(at, SILENT_S, text, counts=polled)
        return waits

    def lag(self) -> dict[TP, int]:
        """Records behind the last fetch that are not handled yet."""
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
        """A batch of number 0 follows a seek to the committed offset: nothing can be missing before it."""
        expected = self._numbers.get(batch.partition, 0)
        if batch.number not in (0, expected):
            raise LostBatchError(f"{batch.partition}: batch {batch.number} came where {expected} was due")
        self._numbers[batch.partition] = batch.number + 1

    async def _last_if_it_fails(self, name: str, step: Coroutine[Any, Any, None]) -> None:
        """One step of the stage. Behind one that failed, or was cancelled, nothing is owned and nothing is done."""
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
                    except Exception as error:  # the task's only way to tell: nobody awaits it
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
                allocator.give_back()
            self._numbers = {}
            self.ready = bool(self._owned) or not partitions

    async def _acquire(self, partitions: Sequence[TP]) -> bool:
        """False if the next rebalance began meanwhile."""
        consumer = self.app.batch_consumer
        consumer.memory = self.stage.memory
        stood, other, gone = await consumer.look(partitions, self.stage.topics)
        if other:
            raise StageError(f"{', '.join(sorted(other))} was made anew under its old name. {self.stage.remedy}")
        for tp, records in gone.items():
            at = f"{tp.topic}[{tp.partition}]"
            log.error("lost: retention took records that were not read", records=records, at=at, stage=self.stage.name)
        committed = {tp: stood.get(tp) for tp in partitions}
        self._step = "acquire"
        self._acquiring = asyncio.create_task(self.stage.acquire(partitions, committed))
        await asyncio.wait([self._acquiring])
        if self._acquiring.cancelled():
            return False
        self._acquiring.result()
        begin = self.stage.committable()
        back = {tp: begin[tp] for tp, offset in stood.items() if begin.get(tp, offset) < offset}
        return not back or await consumer.put_back(back)

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self.ready = False
        if self._acquiring is not None:
            self._acquiring.cancel()
        async with self._lock:
            await self._give_back()

    async def _give_back(self) -> None:
        if self._owned:
            await self._last_if_it_fails("release", self.stage.release())
            self._mark()
            await self.app.consumer.commit()
            self._owned = frozenset()
