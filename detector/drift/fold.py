"""Drift of models: the fold of `link` that sums rows by window of event time, and compares windows.

    step    a frame's rows -> sums, whole numbers, by space, window and group of clients
    close   closed windows -> figures -> records and alerts, and the shift of the population

Sums are whole numbers and a row counts once, so neither the order of partitions nor redelivery changes what a window
holds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detector.drift import records as drift_records
from detector.drift import windows
from detector.drift.monitor import Drifted, PopulationStatistics, SpaceDrift, SpaceMemory
from detector.event_time import Admitted, EventTime, StoredTime, chosen, in_time
from detector.frame import CloseFrame, Frame, RowFrame, ShiftFrame
from detector.link_fold import Closed, DamagedStateError
from detector.settings import DetectionSettings
from models.artefacts.store import Artefacts, ModelArtefact
from models.kernels.drift.windows import GROUPS
from models.rows import F64, FLAG_UNJUDGED, I64, Rows

GAP_WINDOWS = 2_100
"""Two weeks of ten minutes. After a longer silence windows continue where there are rows."""

SUMMED_ROWS = 4_096
"""Rows whose sums are taken together: each takes up a kilobyte meanwhile."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What drift depends on besides the rows. artefacts : by space."""

    config: DetectionSettings
    artefact_hash: str
    artefacts: Mapping[str, ModelArtefact]

    @classmethod
    def of(cls, config: DetectionSettings, artefacts: Artefacts) -> "Settings":
        return cls(config, artefacts.hash, {artefact.space: artefact for artefact in artefacts.models.values()})

    def population(self, space: str) -> PopulationStatistics | None:
        return self.artefacts[space].population


class _Stored(msgspec.Struct):
    window_ms: int
    artefact_hash: str
    time: StoredTime
    closed: int | None
    open: list[tuple[str, int, bytes]]
    spaces: list[tuple[str, SpaceMemory]]


class DriftFold:
    """A LinkFold (see there). All partitions and all spaces.

    closed : windows below this number are closed everywhere; None before the first.
    open : space -> number of a window -> its sums, (GROUPS, width).
    """

    name = "drift"
    layout = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.window_ms = 1_000 * settings.config.drift.window_s
        self.time = self._time()
        self.closed: int | None = None
        self.open: dict[str, dict[int, I64]] = {}
        self.spaces: dict[str, SpaceDrift] = {}
        self.late = 0

    @classmethod
    def of(cls, config: DetectionSettings, artefacts: Artefacts) -> "DriftFold":
        return cls(Settings.of(config, artefacts))

    @property
    def cuts(self) -> Mapping[int, int]:
        return self.time.cuts

    def step(self, frames: Sequence[Frame]) -> None:
        """Count the new rows of known spaces. Rows of many frames are summed together, which small frames need."""
        waiting = 0
        admitted: dict[str, list[Admitted]] = {}
        for frame in frames:
            if isinstance(frame, CloseFrame):
                self.time.cut(frame)
            elif isinstance(frame, RowFrame) and self._is_known(frame) and (new := self.time.admit(frame)) is not None:
                admitted.setdefault(frame.space, []).append(new)
                waiting += new.rows.count
                if waiting >= SUMMED_ROWS:
                    self._count_all(admitted)
                    admitted, waiting = {}, 0
        self._count_all(admitted)

    def due(self, behind: Collection[int]) -> int | None:
        passed_ms = self.time.horizon(behind)
        if passed_ms is None:
            return None
        end = passed_ms // self.window_ms
        held = any(number < end for opened in self.open.values() for number in opened)
        return end * self.window_ms if held or (self.closed is not None and end > self.closed) else None

    def close(self, until_ms: int) -> Closed:
        """Window by window, spaces by name."""
        closed = Closed([], [], 0)
        count = 0
        for number, jumped in self._due_windows(until_ms // self.window_ms):
            count += 1
            for space in sorted(self.open.keys() | self.spaces.keys()):
                self._close_one(space, number, jumped, closed)
        return closed._replace(windows=count)

    def dump(self) -> bytes:
        stored = _Stored(
            window_ms=self.window_ms,
            artefact_hash=self.settings.artefact_hash,
            time=self.time.dump(),
            closed=self.closed,
            open=[
                (space, number, sums.tobytes())
                for space, opened in sorted(self.open.items())
                for number, sums in sorted(opened.items())
            ],
            spaces=[(space, drift.memory) for space, drift in sorted(self.spaces.items())],
        )
        return msgspec.msgpack.encode(stored)

    def load(self, value: bytes) -> None:
        """Drops spaces whose artefacts are gone, and all spaces if windows have another length. Under other artefacts
        the comparison with the population begins again.
        """
        try:
            stored = msgspec.msgpack.decode(value, type=_Stored)
        except (msgspec.MsgspecError, ValueError) as error:
            raise DamagedStateError(f"damaged state of drift: {type(error).__name__}") from error
        self.time = self._time(stored.time)
        if stored.window_ms != self.window_ms:
            return
        self.closed = stored.closed
        same = stored.artefact_hash == self.settings.artefact_hash
        for space, memory in stored.spaces:
            if space in self.settings.artefacts:
                self.spaces[space] = self._space(space, memory)
                if not same:
                    self.spaces[space].forget_population()
        for space, number, sums in stored.open:
            if same and space in self.settings.artefacts:
                self.open.setdefault(space, {})[number] = self._sums(space, sums)

    def _time(self, stored: StoredTime | None = None) -> EventTime:
        drift = self.settings.config.drift
        return EventTime(drift.lateness_s, drift.patience_s, stored)

    def _is_known(self, frame: RowFrame) -> bool:
        artefact = self.settings.artefacts.get(frame.space)
        return artefact is not None and frame.rows.values.shape[1] == artefact.encoder.dim

    def _count_all(self, admitted: Mapping[str, Sequence[Admitted]]) -> None:
        """admitted : by space."""
        for space, parts in admitted.items():
            rows = parts[0].rows
            if len(parts) > 1:
                names = [name for name in Rows._fields if not name.startswith("id_")]
                rows = rows._replace(
                    **{name: np.concatenate([getattr(part.rows, name) for part in parts]) for name in names}
                )
            counts = [part.rows.count for part in parts]
            clocks = np.repeat([part.clock_ms for part in parts], counts)
            cuts = np.repeat([part.cut_ms for part in parts], counts)
            wanted = in_time(rows.time_ms, clocks, cuts, self.window_ms, self.closed)
            if not wanted.all():
                self.late += rows.count - int(np.count_nonzero(wanted))
                rows = chosen(rows, wanted)
            judged = rows.flags & FLAG_UNJUDGED == 0
            if not judged.all():
                rows = chosen(rows, judged)
            if rows.count:
                self._count(space, rows)

    def _count(self, space: str, rows: Rows) -> None:
        population = self.settings.population(space)
        features: F64 = np.zeros((rows.count, 0)) if population is None else population.rff(rows.values)
        windows.add(self.open.setdefault(space, {}), rows.time_ms // self.window_ms, rows, features)

    def _due_windows(self, end: int) -> Iterator[tuple[int, bool]]:
        """Numbers below `end` that are still open, and whether windows before it are passed over. Moves `closed`."""
        held = sorted({number for opened in self.open.values() for number in opened if number < end})
        if self.closed is None:
            if not held:
                return
            self.closed = held[0]
        for stop in [*(number + 1 for number in held), end]:
            jumped = stop - self.closed > GAP_WINDOWS
            start = stop - 1 if jumped else self.closed
            for number in range(start, stop):
                yield number, jumped
            self.closed = max(stop, self.closed)

    def _close_one(self, space: str, number: int, jumped: bool, closed: Closed) -> None:
        sums = self.open.get(space, {}).pop(number, None)
        if space not in self.spaces:
            if sums is None:
                return
            self.spaces[space] = self._space(space, SpaceMemory(number))
        drift, artefact = self.spaces[space], self.settings.artefacts[space]
        if jumped:
            drift.forget_week()
        drifted, moved = drift.close(number, sums)
        for statistic in drifted:
            closed.events.extend(drift_records.events(self._finding(artefact, statistic)))
        if moved is not None:
            closed.frames.append(ShiftFrame(-1, -1, artefact.model, space, *moved))

    def _space(self, space: str, memory: SpaceMemory) -> SpaceDrift:
        return SpaceDrift(memory, self.settings.config.drift, self.settings.population(space))

    def _finding(self, artefact: ModelArtefact, drifted: Drifted) -> drift_records.DriftFinding:
        return drift_records.DriftFinding(
            model=artefact.model,
            space=artefact.space,
            config_hash=self.settings.config.hash,
            artefact_hash=self.settings.artefact_hash,
            **drifted._asdict(),
        )

    def _sums(self, space: str, stored: bytes) -> I64:
        artefact, population = self.settings.artefacts[space], self.settings.population(space)
        features = 0 if population is None else len(population.rff_mean)
        try:
            shape = GROUPS, windows.width(artefact.encoder.dim, features)
            return np.frombuffer(stored, np.int64).reshape(shape).copy()
        except ValueError as error:
            raise DamagedStateError("damaged state of drift: sums of another shape") from error
