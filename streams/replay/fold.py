"""Partitions of the fold as `judge` has them and drift as `link` has it, with what is counted along the way."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from detector import engine, engine_batch
from detector.events.finding import Event
from detector.frame import Frame, RowFrame, ShiftFrame
from streams.history.base import FrameBatch
from streams.replay.census import Census
from streams.replay.checkpoint import UNUSABLE, Keeper, KeptFold, KeptPart
from streams.replay.link import Link
from streams.replay.selection import Selection
from streams.replay.settings_changes import Eras
from streams.wire.rejects import Reject

COUNTS = ("records", "rows", "alerts", "skipped", "evicted")


class ReplayedEvent(NamedTuple):
    """An event of a replay. cold : its partition's fold began without what was before."""

    event: Event
    cold: bool


@dataclass(slots=True)
class PartitionFold:
    """What one fold has found; parts of several partitions add up.

    records : raw records, or messages of `requests`. unjudged : rows by reason. clock_ms : the last row's event time.
    """

    told: list[ReplayedEvent] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unjudged: Counter[str] = field(default_factory=Counter)
    census: Census = field(default_factory=Census)
    records: int = 0
    rows: int = 0
    alerts: int = 0
    skipped: int = 0
    evicted: int = 0
    clock_ms: int | None = None

    def join(self, other: "PartitionFold") -> None:
        self.told += other.told
        self.rejects += other.rejects
        self.unjudged += other.unjudged
        self.census.join(other.census)
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def dump(self) -> KeptPart:
        counts = {name: getattr(self, name) for name in COUNTS}
        told = [(one.event, one.cold) for one in self.told]
        return KeptPart(told, self.rejects, dict(self.unjudged), self.census.dump(), counts, self.clock_ms)

    @classmethod
    def load(cls, kept: KeptPart) -> "PartitionFold":
        told = [ReplayedEvent(*one) for one in kept.told]
        census = Census.load(kept.census)
        return cls(told, kept.rejects, Counter(kept.unjudged), census, **kept.counts, clock_ms=kept.clock_ms)


class Fold:
    """Some or all partitions of `requests`.

    judge : False leaves clients alone. link : also the drift of models, which needs all partitions.
    """

    def __init__(self, eras: Eras, selection: Selection, *, judge: bool = True, link: bool = True) -> None:
        self.part = PartitionFold()
        self._eras = eras
        self._selection = selection
        self._judge = judge
        self._states: dict[int, engine.PartitionState] = {}
        self._era: dict[int, int] = {}
        self._link = Link(eras) if link else None
        self._cold: set[int] = set()
        self._link_cold = False

    def open(self, partition: int, blocks: Sequence[bytes], *, cold: bool) -> None:
        """Begin a partition with blocks of stored state. cold : there was something before that is not in them.

        Raises engine.BlockError.
        """
        if cold:
            self._cold.add(partition)
        self._link_cold |= cold or bool(blocks)  # there is no state of drift beside the blocks
        for value in blocks if self._judge else ():
            offset = engine.block_mark(value).offset
            engine.load_block(self._state(partition, offset), value)

    def add(self, batch: FrameBatch) -> None:
        if self._judge:
            self.part.records += len(batch.frames) + len(batch.rejects)
            self.part.rejects += batch.rejects
        self.step(batch.frames)

    def step(self, frames: Sequence[Frame]) -> None:
        if self._link is not None:
            self._link.step(frames)
        if self._judge:
            narrowed = [one for frame in frames if (one := self._selection.narrowed(frame)) is not None]
            for _, alike in groupby(narrowed, self._kind):
                self._judged(list(alike))

    def _kind(self, frame: Frame) -> tuple[int, int, bool]:
        """Frames that differ in it cannot be folded together: partition, settings, whether it is told of."""
        era = self._eras.at(frame.partition, frame.offset)
        return frame.partition, era, self._selection.holds(frame.offset)

    def _judged(self, frames: Sequence[Frame]) -> None:
        """frames : of one kind, at least one."""
        partition, offset = frames[0].partition, frames[0].offset
        found = engine_batch.step(self._state(partition, offset), frames)
        if found:
            self._tell(self._selection.told(found, offset), partition in self._cold)
        for frame in frames:
            if isinstance(frame, RowFrame) and frame.rows.count:
                self.part.rows += frame.rows.count
                self.part.clock_ms = int(frame.rows.time_ms[-1])
                counted = self._selection.counted(frame)
                if counted is not None:
                    self.part.census.add(counted)

    def _state(self, partition: int, offset: int) -> engine.PartitionState:
        era = self._eras.at(partition, offset)
        state = self._states.get(partition)
        if state is None or self._era[partition] != era:
            opened = engine.open_partition(self._eras.settings[era], partition)
            if state is not None:  # as a worker with other settings takes over: through the blocks
                self._count_of(state)
                for block in range(len(state.block_offset)):
                    engine.load_block(opened, engine.dump_block(state, block))
            state = self._states[partition] = opened
            self._era[partition] = era
        return state

    def _tell(self, events: Sequence[Event], cold: bool) -> None:
        self.part.told += [ReplayedEvent(event, cold) for event in events]
        self.part.alerts += sum(event.kind == "alert" for event in events)

    @property
    def due_ms(self) -> int | None:
        """Until when windows of drift are due to be closed, if any are."""
        return None if self._link is None else self._link.due_ms

    def close_windows(self) -> list[ShiftFrame]:
        """Close windows of drift; the newest shift of each space, not yet placed."""
        if self._link is None:
            return []
        events, shifts = self._link.close()
        self._tell(self._selection.told_of_models(events), self._link_cold)
        return shifts

    def finish(self) -> PartitionFold:
        """What was found, counters of the states included. The fold cannot go on from here."""
        for state in self._states.values():
            self._count_of(state)
        self._states.clear()
        return self.part

    def _count_of(self, state: engine.PartitionState) -> None:
        self.part.unjudged["unknown_space"] += state.unjudged
        self.part.skipped += state.skipped
        self.part.evicted += state.evicted

    def dump(self, *, states: bool = True) -> KeptFold:
        """All of it; `load` goes on with the same bytes. states : False if only what was found is wanted."""
        part = self.part.dump()
        for state in self._states.values():
            part.unjudged["unknown_space"] = part.unjudged.get("unknown_space", 0) + state.unjudged
            part.counts["skipped"] += state.skipped
            part.counts["evicted"] += state.evicted
        if not states:
            return KeptFold(part, {}, None, [], {}, self._link_cold)
        blocks = {
            number: [engine.dump_block(state, block) for block in range(len(state.block_offset))]
            for number, state in self._states.items()
        }
        link = None if self._link is None else self._link.dump()
        return KeptFold(part, blocks, link, sorted(self._cold), dict(self._era), self._link_cold)

    def load(self, kept: KeptFold, keeper: Keeper) -> None:
        """Raises CheckpointError."""
        self.part = PartitionFold.load(kept.part)
        self._cold, self._link_cold = set(kept.cold), kept.link_cold
        try:
            for number, blocks in kept.blocks.items():
                self._era[number] = kept.eras[number]
                settings = self._eras.settings[kept.eras[number]]
                self._states[number] = engine.open_partition(settings, number)
                for block in blocks:
                    engine.load_block(self._states[number], block)
            if kept.link is not None and self._link is not None:
                self._link.load(kept.link)
        except UNUSABLE as error:
            raise keeper.refuse(error) from error
