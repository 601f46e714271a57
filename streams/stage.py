"""What `sketch` and `judge` share: one agent over batches, owning partitions between assignment and revocation.

    rebalance complete -> acquire(partitions) -> process(batch) … tick() … -> release()  <- partitions revoked, or stop
                                                    └ committable() -> committed offsets

All five run one at a time, under one lock: no batch is processed while partitions come or go, and what `release` writes
is the state between two batches. Batches of partitions that are not owned are dropped; the next owner reads them again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import mode
from faust.types import TP, StreamT

from streams.batches import Batch, BatchApp

SILENT_S = 60.0
"""Faust asks for records about every second, unless a stage takes longer for what it has."""

REBALANCE_S = 180.0
"""A rebalance waits up to a minute for members that do not answer."""


class StageError(RuntimeError):
    """A stage cannot go on, and what to do about it."""


class LostBatchError(RuntimeError):
    """A batch was lost between fetch and stage; going on would commit what was never handled."""


class Stage(Protocol):
    """One step of the pipeline, without any knowledge of groups and rebalances.

    Whatever fails raises, and ends the worker. tick_s : how often `tick` wants to be called, s.
    """

    name: str
    topics: Sequence[str]
    tick_s: float

    async def start(self) -> None:
        """Open clients."""

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Get ready for exactly these partitions. committed : where the group will begin to read, None if anew."""

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
        self._quiet_s = 0.0
        self._progress: tuple[object, ...] = ()
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

    def stuck(self, waited_s: float) -> str | None:
        """What has been waited for too long, if anything: Faust may stop reading, or never end a rebalance.

        waited_s : since the last call. What the event loop slept through meanwhile is not Faust's silence: the first
        frame may wait a minute for the compiler.
        """
        polls = self.app.batch_consumer.polls if self.app.started else 0
        progress = (self.ready, polls, self._acquiring is not None)
        self._quiet_s = self._quiet_s + waited_s if progress == self._progress else 0.0
        self._progress = progress
        if self.ready and self._quiet_s > SILENT_S:
            return f"{self.stage.name}: Faust has not asked for records for {SILENT_S:.0f} s: its consumer has stopped"
        if not self.ready and self._acquiring is None and self._quiet_s > REBALANCE_S:
            return f"{self.stage.name}: no assignment for {REBALANCE_S:.0f} s: a rebalance that does not end"
        return None

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
                    await self.stage.process(batch)
                    self._mark()

    def _check_number(self, batch: Batch) -> None:
        """A batch of number 0 follows a seek to the committed offset: nothing can be missing before it."""
        expected = self._numbers.get(batch.partition, 0)
        if batch.number not in (0, expected):
            raise LostBatchError(f"{batch.partition}: batch {batch.number} came where {expected} was due")
        self._numbers[batch.partition] = batch.number + 1

    def _mark(self) -> None:
        for partition, offset in self.stage.committable().items():
            self.app.batch_consumer.done(partition, offset)

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(self.stage.tick_s)
            async with self._lock:
                if self._owned:
                    try:
                        await self.stage.tick()
                    except Exception as error:  # the task's only way to tell: nobody awaits it
                        self.app.fail(error)
                        return
                    self._mark()

    async def _on_rebalance_complete(self, *_: Any, **__: Any) -> None:
        """Faust awaits this before it seeks and reads."""
        consumer = self.app.batch_consumer
        partitions = sorted(consumer.assignment())
        async with self._lock:
            committed = {partition: await consumer.committed(partition) for partition in partitions}
            self._acquiring = asyncio.create_task(self.stage.acquire(partitions, committed))
            await asyncio.wait([self._acquiring])
            acquired, self._acquiring = self._acquiring, None
            if acquired.cancelled():
                return  # the next rebalance began meanwhile
            if (error := acquired.exception()) is not None:
                self.app.fail(error)
                raise error
            self._owned, self._numbers = frozenset(partitions), {}
            self.ready = True

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self.ready = False
        if self._acquiring is not None:
            self._acquiring.cancel()
        async with self._lock:
            await self._give_back()

    async def _give_back(self) -> None:
        if self._owned:
            await self.stage.release()
            self._mark()
            await self.app.consumer.commit()
            self._owned = frozenset()
