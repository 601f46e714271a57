"""Partitions of `requests`, folded as `judge` does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from detector import engine, engine_batch
from detector.events.finding import Event
from detector.frame import Frame, JudgeFrame, RowFrame
from streams.history.base import FrameBatch
from streams.replay.selection import Selection
from streams.replay.settings_changes import SettingsHistory
from streams.replay.summary import Summary
from streams.wire.rejects import Reject

Step = Callable[[engine.PartitionState, Sequence[Frame]], list[Event]]


@dataclass
class Findings:
    """Events, rejects and counts of one or more folds. Findings of different partitions add up.

    cold : ids of cold-start events, whose fold began without the evidence from before. rows : folded rows, also those
    outside of the selection. clock_ms : event time of the last row.
    """

    events: list[Event] = field(default_factory=list)
    cold: set[str] = field(default_factory=set)
    rejects: list[Reject] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    rows: int = 0
    alerts: int = 0
    clock_ms: int | None = None

    def add_events(self, events: Sequence[Event], *, cold: bool) -> None:
        self.events += events
        self.alerts += sum(event.kind == "alert" for event in events)
        if cold:
            self.cold.update(event.id for event in events)

    def join(self, other: "Findings") -> None:
        self.events += other.events
        self.cold |= other.cold
        self.rejects += other.rejects
        self.summary.join(other.summary)
        self.rows += other.rows
        self.alerts += other.alerts


class Fold:
    """Some or all partitions of `requests`; adds to `findings`.

    step : takes a partition's state and frames, returns events; the engine's unless a caller only wants the frames.
    whole : all clients are folded, whichever are selected, and what `judge` writes is kept: raw records lack it, and it
    depends on all clients. A log holds it.
    """

    def __init__(
        self,
        settings: SettingsHistory,
        selection: Selection,
        findings: Findings,
        step: Step = engine_batch.step,
        *,
        whole: bool = False,
    ) -> None:
        self._findings = findings
        self._settings = settings
        self._selection = selection
        self._engine_step = step
        self._states: dict[int, engine.PartitionState] = {}
        self._in_force: dict[int, int] = {}
        self._cold: set[int] = set()
        self._whole = whole
        self._told: list[JudgeFrame] = []

    def take(self) -> list[JudgeFrame]:
        """What `judge` would write into `requests` by now, each once."""
        taken, self._told = self._told, []
        return taken

    def open(self, partition: int, blocks: Sequence[bytes], *, cold: bool) -> None:
        """Begin a partition with stored state. cold : frames from before are neither in the history nor in `blocks`.

        Raises engine.BlockError.
        """
        if cold:
            self._cold.add(partition)
        for value in blocks:
            engine.load_block(self._state(partition, engine.block_mark(value).offset), value)

    def add(self, batch: FrameBatch) -> None:
        """Messages as they were read from `requests`."""
        self._findings.summary.records += len(batch.frames) + len(batch.rejects)
        self._findings.rejects += batch.rejects
        self.step(batch.frames)

    def step(self, frames: Sequence[Frame]) -> None:
        wanted = frames if self._whole else self._narrowed(frames)
        for _, alike in groupby(wanted, self._kind):
            self._judge(list(alike))

    def _narrowed(self, frames: Sequence[Frame]) -> list[Frame]:
        return [one for frame in frames if (one := self._selection.narrowed(frame)) is not None]

    def _kind(self, frame: Frame) -> tuple[int, int, bool]:
        """Frames that differ in it are not folded together: partition, settings, whether the selection has them."""
        in_force = self._settings.at(frame.partition, frame.offset)
        return frame.partition, in_force, self._selection.holds(frame.offset)

    def _judge(self, frames: Sequence[Frame]) -> None:
        """frames : of one kind, at least one."""
        partition, offset = frames[0].partition, frames[0].offset
        state = self._state(partition, offset)
        events = self._engine_step(state, frames)
        told = state.breakers.take()
        self._told += told if self._whole else []
        if events:
            self._findings.add_events(self._selection.reported(events, offset), cold=partition in self._cold)
        for frame in self._narrowed(frames) if self._whole else frames:
            if isinstance(frame, RowFrame) and frame.rows.count:
                self._findings.rows += frame.rows.count
                self._findings.clock_ms = int(frame.rows.time_ms[-1])
                counted = self._selection.counted(frame)
                if counted is not None:
                    self._findings.summary.add(counted)

    def _state(self, partition: int, offset: int) -> engine.PartitionState:
        in_force = self._settings.at(partition, offset)
        state = self._states.get(partition)
        if state is None or self._in_force[partition] != in_force:
            opened = engine.open_partition(self._settings.settings[in_force], partition)
            if state is not None:  # as a worker with other settings takes over: through the blocks
                self._add_counters(state)
                for block in range(len(state.block_offset)):
                    engine.load_block(opened, engine.dump_block(state, block))
            state = self._states[partition] = opened
            self._in_force[partition] = in_force
        return state

    def finish(self) -> None:
        """Add the counters of all states to the findings. The fold cannot continue after this."""
        for state in self._states.values():
            self._add_counters(state)
        self._states.clear()
        self._findings.summary.flush()

    def _add_counters(self, state: engine.PartitionState) -> None:
        summary = self._findings.summary
        summary.unjudged["unknown_space"] += state.unjudged
        summary.skipped += state.skipped
        summary.redelivered += state.redelivered
        summary.evicted += state.evicted
        summary.back += state.back
