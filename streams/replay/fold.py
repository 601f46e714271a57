"""Partitions of the fold as `judge` has them and drift as `link` has it, with what is counted along the way."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from detector import drift, engine
from detector.finding import Event
from detector.frame import Frame, RowFrame, ShiftFrame
from streams.rejects import Reject
from streams.replay.census import Census
from streams.replay.selection import Selection


class Told(NamedTuple):
    """An event of a replay. cold : its partition's fold began without what was before."""

    event: Event
    cold: bool


@dataclass(slots=True)
class Part:
    """What one fold has found; parts of several partitions add up.

    records : raw records, or messages of `requests`. unjudged : rows by reason. clock_ms : the latest event time.
    """

    told: list[Told] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unjudged: Counter[str] = field(default_factory=Counter)
    census: Census = field(default_factory=Census)
    records: int = 0
    skipped: int = 0
    evicted: int = 0
    alerts: int = 0
    rows: int = 0
    clock_ms: int | None = None

    def join(self, other: "Part") -> None:
        self.told += other.told
        self.rejects += other.rejects
        self.unjudged += other.unjudged
        self.census.join(other.census)
        self.records += other.records
        self.skipped += other.skipped
        self.evicted += other.evicted
        self.alerts += other.alerts
        self.rows += other.rows


class Fold:
    """Some or all partitions of `requests`.

    link : also the drift of models, which needs all of them. judge : False leaves clients alone.
    """

    def __init__(
        self, settings: engine.EngineSettings, selection: Selection, *, judge: bool = True, link: bool = True
    ) -> None:
        self.part = Part()
        self._settings = settings
        self._selection = selection
        self._judge = judge
        self._states: dict[int, engine.PartitionState] = {}
        self._link = drift.LinkState(drift.Settings.of(settings.config, settings.artefacts)) if link else None
        self._cold: set[int] = set()

    def open(self, partition: int, blocks: Iterable[bytes], *, cold: bool) -> None:
        """Begin a partition with blocks of stored state. cold : there was something before that is not in them.

        Raises engine.BlockError.
        """
        state = self._state(partition)
        for block in blocks:
            engine.load_block(state, block)
        if cold:
            self._cold.add(partition)

    def _state(self, partition: int) -> engine.PartitionState:
        if partition not in self._states:
            self._states[partition] = engine.open_partition(self._settings, partition)
        return self._states[partition]

    def step(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if self._link is not None:
                drift.step(self._link, frame)
            if self._judge:
                self._judged(frame)

    def _judged(self, frame: Frame) -> None:
        narrowed = self._selection.narrowed(frame)
        if narrowed is None:
            return
        found = engine.step(self._state(frame.partition), narrowed)
        if found:
            self._tell(self._selection.told(found, frame.offset), frame.partition in self._cold)
        if isinstance(narrowed, RowFrame) and narrowed.rows.count:
            self.part.rows += narrowed.rows.count
            self.part.clock_ms = int(narrowed.rows.time_ms[-1])
            counted = self._selection.counted(narrowed)
            if counted is not None:
                self.part.census.add(counted)

    def _tell(self, events: Sequence[Event], cold: bool) -> None:
        self.part.told += [Told(event, cold) for event in events]
        self.part.alerts += sum(event.kind == "alert" for event in events)

    def close_windows(self, behind: Collection[int] = ()) -> list[ShiftFrame]:
        """Close the windows of drift that event time has passed; the newest shift of each space, not yet placed."""
        if self._link is None:
            return []
        closed = drift.close(self._link, behind)
        self._tell(self._selection.told_of_models(closed.events), bool(self._cold))
        return list({shift.space: shift for shift in closed.shifts}.values())

    def finish(self) -> Part:
        """What was found, counters of the states included."""
        states = self._states.values()
        self.part.unjudged += Counter(unknown_space=sum(state.unjudged for state in states))
        self.part.skipped += sum(state.skipped for state in states)
        self.part.evicted += sum(state.evicted for state in states)
        return self.part
