"""Drift of models, as a fold: (state, frame) -> sums by window -> events. `link` runs it.

    step(state, frame)    sums a frame's rows into the windows of event time they fall into
    due(state, behind)    until when event time has passed: what to write into every partition, as a CloseFrame
    close(state)          closes windows whose CloseFrame was met in every partition: figures, drift, the shift

Sums are whole numbers and a row counts once, so neither the order of partitions nor redelivery changes what a window
holds; and what is too late for it is what stands behind the CloseFrame in its own partition, whoever reads it and when.
Time is what records say: a partition's clock is the middle one of its last fifteen clients' times, so that a wrong
clock moves nothing.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import zstandard

from detector.drift import records as drift_records
from detector.drift import windows
from detector.drift.monitor import Drifted, PopulationStatistics, SpaceDrift, SpaceMemory
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, RowFrame, ShiftFrame
from detector.settings import DetectionSettings
from detector.state.packing import BODY_BYTES_MIN, pack, unpack
from models.artefacts.store import Artefacts, ModelArtefact
from models.kernels.drift.windows import GROUPS
from models.rows import F64, I32, I64, Rows

STATE_MAGIC = b"PWL"
STATE_LAYOUT = 1
"""One digit behind the magic. Goes up whenever what is stored changes; layouts.py leads there."""

CLOCK_CLIENTS = 15
CLOCK_ROWS = 64
AHEAD_MS = 86_400_000
"""Rows further ahead of their partition's clock are not counted: nothing holds a window open for years."""

GAP_WINDOWS = 2_100
"""Two weeks of ten minutes. Behind a longer silence windows go on where there are rows."""

SUMMED_ROWS = 4_096
"""Rows whose sums are taken together: each takes up a kilobyte meanwhile."""

_NEVER = -(2**62)
UNITS_MAX = 65_536
"""Whoever may write frames may name sources; those not heard of for longest lose their marks."""


class StateError(Exception):
    """A stored state that cannot be read here; the text says what to do."""


class DamagedStateError(StateError):
    """Bytes that are no state, or not those that were written. An older record may be whole."""


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

    @property
    def window_ms(self) -> int:
        return 1_000 * self.config.drift.window_s


@dataclass(slots=True)
class LinkState:
    """All partitions and all spaces.

    next : partition -> offset of the next frame. marks : (partition, source, space) -> position of the last row known.
    clocks : partition -> (client, time_ms) of the last clients. reached : source -> time_ms. cuts : partition -> event
    time, ms, up to which its windows are closed. closed : windows below this number are closed everywhere; None before
    the first. open : space -> number -> (GROUPS, width). late : rows not counted.
    """

    settings: Settings
    next: dict[int, int] = field(default_factory=dict)
    marks: dict[tuple[int, int, str], tuple[int, int]] = field(default_factory=dict)
    clocks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    cuts: dict[int, int] = field(default_factory=dict)
    closed: int | None = None
    open: dict[str, dict[int, I64]] = field(default_factory=dict)
    spaces: dict[str, SpaceDrift] = field(default_factory=dict)
    late: int = 0


class Closed(NamedTuple):
    """What closing windows gave. shifts : newest last; partition and offset -1, since they are not written yet."""

    events: list[Event]
    shifts: list[ShiftFrame]
    windows: int


class _Met(NamedTuple):
    """New rows, with their partition's clock and cut when they came."""

    rows: Rows
    clock: int
    cut: int


def step(state: LinkState, frame: Frame) -> int:
    """Count a frame's rows; how many were new. Frames below the mark, orders and unknown spaces change nothing."""
    return step_all(state, [frame])


def step_all(state: LinkState, frames: Iterable[Frame]) -> int:
    """The same for one frame after the other. Their rows are summed up together, which small frames need."""
    new = waiting = 0
    met: dict[str, list[_Met]] = {}
    for frame in frames:
        rows = _admitted(state, frame)
        if rows is None or not isinstance(frame, RowFrame):
            continue
        clock = _advance(state, frame.partition, rows)
        _reach(state, rows)
        met.setdefault(frame.space, []).append(_Met(rows, clock, state.cuts.get(frame.partition, _NEVER)))
        new, waiting = new + rows.count, waiting + rows.count
        if waiting >= SUMMED_ROWS:
            _count_all(state, met)
            met, waiting = {}, 0
    _count_all(state, met)
    return new


def _admitted(state: LinkState, frame: Frame) -> Rows | None:
    """A frame's new rows, if there are any. Moves the marks."""
    if frame.offset < state.next.get(frame.partition, 0):
        return None
    state.next[frame.partition] = frame.offset + 1
    if isinstance(frame, CloseFrame):
        state.cuts[frame.partition] = max(frame.until_ms, state.cuts.get(frame.partition, frame.until_ms))
        return None
    if not isinstance(frame, RowFrame) or not frame.rows.count or not _is_known(state.settings, frame):
        return None
    rows = _fresh(state, frame)
    return rows if rows.count else None


def _is_known(settings: Settings, frame: RowFrame) -> bool:
    artefact = settings.artefacts.get(frame.space)
    return artefact is not None and frame.rows.values.shape[1] == artefact.encoder.dim


def _fresh(state: LinkState, frame: RowFrame) -> Rows:
    """Rows above the marks of their raw partitions; moves the marks. Files may tell a stretch of one twice."""
    rows, known = frame.rows, np.zeros(frame.rows.count, np.bool_)
    for start, stop in _stretches(rows):
        unit = (frame.partition, int(rows.source[start]), frame.space)
        mark = state.marks.get(unit, (-1, -1))
        offset, index = rows.offset[start:stop], rows.index[start:stop]
        if (int(offset[0]), int(index[0])) > mark and _rise(offset, index):
            mark = int(offset[-1]), int(index[-1])
        else:
            for place, position in enumerate(zip(offset.tolist(), index.tolist(), strict=True), start):
                known[place] = position <= mark
                mark = max(mark, position)
        _keep_last(state.marks, unit, mark)
    return _take(rows, ~known) if known.any() else rows


def _stretches(rows: Rows) -> list[tuple[int, int]]:
    """[start, stop) of rows of one raw partition that stand together."""
    cuts = [0, *(np.flatnonzero(rows.source[1:] != rows.source[:-1]) + 1).tolist(), rows.count]
    return list(itertools.pairwise(cuts))


def _rise(offset: I64, index: I32) -> bool:
    """Whether each row stands behind the one before it; mostly each is a record of its own."""
    if (offset[1:] > offset[:-1]).all():
        return True
    forward, within = np.diff(offset), np.diff(index)
    return bool(((forward > 0) | ((forward == 0) & (within > 0))).all())


def _take(rows: Rows, chosen: Any) -> Rows:
    """Some rows, without request ids."""
    columns = {name: column[chosen] for name, column in rows._asdict().items() if not name.startswith("id_")}
    return rows._replace(**columns)


def _keep_last(table: dict[Any, Any], key: Any, value: Any) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > UNITS_MAX:
        del table[next(iter(table))]


def _advance(state: LinkState, partition: int, rows: Rows) -> int:
    """Move the partition's clock, and say it."""
    clients, times = rows.client[-CLOCK_ROWS:].tolist(), rows.time_ms[-CLOCK_ROWS:].tolist()
    seen: dict[int, int] = {}
    for client, time_ms in zip(reversed(clients), reversed(times), strict=True):
        seen.setdefault(client, time_ms)
        if len(seen) == CLOCK_CLIENTS:
            break
    former = [entry for entry in state.clocks.get(partition, []) if entry[0] not in seen]
    state.clocks[partition] = (former + list(reversed(seen.items())))[-CLOCK_CLIENTS:]
    return _clock(state.clocks[partition])


def _reach(state: LinkState, rows: Rows) -> None:
    """How far raw partitions have come: the middle time of the last rows of each."""
    for start, stop in _stretches(rows):
        source = int(rows.source[start])
        times = sorted(rows.time_ms[max(start, stop - CLOCK_ROWS) : stop].tolist())
        reached = times[(len(times) - 1) // 2]
        _keep_last(state.reached, source, max(reached, state.reached.get(source, reached)))


def _clock(recent: Sequence[tuple[int, int]]) -> int:
    return sorted(time_ms for _, time_ms in recent)[(len(recent) - 1) // 2]


def _count_all(state: LinkState, met: Mapping[str, Sequence[_Met]]) -> None:
    """met : by space."""
    for space, parts in met.items():
        rows = parts[0].rows
        if len(parts) > 1:
            names = [name for name in Rows._fields if not name.startswith("id_")]
            rows = rows._replace(
                **{name: np.concatenate([getattr(part.rows, name) for part in parts]) for name in names}
            )
        counts = [part.rows.count for part in parts]
        clocks, cuts = (np.repeat([part[place] for part in parts], counts) for place in (1, 2))
        _count(state, space, rows, clocks, cuts)


def _count(state: LinkState, space: str, rows: Rows, clock: I64, cut: I64) -> None:
    """clock, cut : (n,) of each row's partition when it came."""
    window_ms = state.settings.window_ms
    number = rows.time_ms // window_ms
    first = np.maximum(_NEVER if state.closed is None else state.closed, cut // window_ms)
    wanted = (number >= first) & (rows.time_ms <= clock + AHEAD_MS)
    if not wanted.all():
        state.late += rows.count - int(np.count_nonzero(wanted))
        rows, number = _take(rows, wanted), number[wanted]
        if not rows.count:
            return
    population = state.settings.population(space)
    features: F64 = np.zeros((rows.count, 0)) if population is None else population.rff(rows.values)
    windows.add(state.open.setdefault(space, {}), number, rows, features)


def horizon(state: LinkState, behind: Collection[int]) -> int | None:
    """Event time, ms, that everything awaited has passed; None while a partition that is behind has not been read.

    behind : partitions with records that are known and not yet read. Others, and raw partitions, are waited for unless
    they are more than `drift.patience_s` behind the middle partition.
    """
    clocks = {partition: _clock(recent) for partition, recent in state.clocks.items()}
    if not clocks or any(partition not in clocks for partition in behind):
        return None
    drift = state.settings.config.drift
    now = sorted(clocks.values())[len(clocks) // 2]
    oldest = now - 1_000 * drift.patience_s
    awaited = [clock for partition, clock in clocks.items() if partition in behind or clock > oldest]
    awaited += [time_ms for time_ms in state.reached.values() if time_ms > oldest]
    return min([now, *awaited]) - 1_000 * drift.lateness_s


def due(state: LinkState, behind: Collection[int] = ()) -> int | None:
    """`until_ms` of the CloseFrame to write into every partition, None if there is none to write."""
    passed, window_ms = horizon(state, behind), state.settings.window_ms
    if passed is None:
        return None
    end = passed // window_ms
    held = any(number < end for opened in state.open.values() for number in opened)
    return end * window_ms if held or (state.closed is not None and end > state.closed) else None


def _cut(state: LinkState) -> int | None:
    """Number of the first window that is not closed in every partition."""
    cuts = [state.cuts.get(partition) for partition in range(state.settings.config.request_partitions)]
    known = [cut for cut in cuts if cut is not None]
    return min(known) // state.settings.window_ms if len(known) == len(cuts) else None


def close_due(state: LinkState, behind: Collection[int] = ()) -> Closed:
    """Close what is due in every partition at once: for logs in which nobody says where it closed."""
    until_ms = due(state, behind)
    if until_ms is not None:
        state.cuts = dict.fromkeys(range(state.settings.config.request_partitions), until_ms)
    return close(state)


def close(state: LinkState) -> Closed:
    """Close what every partition has closed, window by window, spaces by name."""
    closed = Closed([], [], 0)
    end = _cut(state)
    if end is None:
        return closed
    count = 0
    for number, jumped in _due(state, end):
        count += 1
        for space in sorted(state.open.keys() | state.spaces.keys()):
            _close_one(state, space, number, jumped, closed)
    return closed._replace(windows=count)


def _due(state: LinkState, end: int) -> Iterator[tuple[int, bool]]:
    """Numbers below `end` that are still open, and whether windows before it are passed over. Moves `closed`."""
    held = sorted({number for opened in state.open.values() for number in opened if number < end})
    if state.closed is None:
        if not held:
            return
        state.closed = held[0]
    for stop in [*(number + 1 for number in held), end]:
        jumped = stop - state.closed > GAP_WINDOWS
        start = stop - 1 if jumped else state.closed
        for number in range(start, stop):
            yield number, jumped
        state.closed = max(stop, state.closed)


def _close_one(state: LinkState, space: str, number: int, jumped: bool, closed: Closed) -> None:
    sums = state.open.get(space, {}).pop(number, None)
    known = state.spaces.get(space)
    if known is None:
        if sums is None:
            return
        known = state.spaces[space] = _space(state.settings, space, SpaceMemory(number))
    if jumped:
        known.forget_week()
    drifted, moved = known.close(number, sums)
    artefact = state.settings.artefacts[space]
    for found in drifted:
        closed.events.extend(drift_records.events(_finding(state.settings, artefact, found)))
    if moved is not None:
        closed.shifts.append(ShiftFrame(-1, -1, artefact.model, space, *moved))


def _space(settings: Settings, space: str, memory: SpaceMemory) -> SpaceDrift:
    return SpaceDrift(memory, settings.config.drift, settings.population(space))


def _finding(settings: Settings, artefact: ModelArtefact, found: Drifted) -> drift_records.DriftFinding:
    return drift_records.DriftFinding(
        model=artefact.model,
        space=artefact.space,
        config_hash=settings.config.hash,
        artefact_hash=settings.artefact_hash,
        **found._asdict(),
    )


def _sums(state: LinkState, space: str, stored: bytes) -> I64:
    artefact, population = state.settings.artefacts[space], state.settings.population(space)
    features = 0 if population is None else len(population.rff_mean)
    try:
        shape = GROUPS, windows.width(artefact.encoder.dim, features)
        return np.frombuffer(stored, np.int64).reshape(shape).copy()
    except ValueError as error:
        raise StateError("the stored state is damaged: sums of another shape") from error


class _Stored(msgspec.Struct):
    window_ms: int
    artefact_hash: str
    next: list[tuple[int, int]]
    marks: list[tuple[int, int, str, int, int]]
    clocks: list[tuple[int, list[tuple[int, int]]]]
    reached: list[tuple[int, int]]
    cuts: list[tuple[int, int]]
    closed: int | None
    open: list[tuple[str, int, bytes]]
    spaces: list[tuple[str, SpaceMemory]]


def dump(state: LinkState) -> bytes:
    """All of it; `load` continues with the same bytes of events."""
    stored = _Stored(
        window_ms=state.settings.window_ms,
        artefact_hash=state.settings.artefact_hash,
        next=sorted(state.next.items()),
        marks=sorted((*unit, *mark) for unit, mark in state.marks.items()),
        clocks=sorted(state.clocks.items()),
        reached=sorted(state.reached.items()),
        cuts=sorted(state.cuts.items()),
        closed=state.closed,
        open=[
            (space, number, sums.tobytes())
            for space, opened in sorted(state.open.items())
            for number, sums in sorted(opened.items())
        ],
        spaces=[(space, known.memory) for space, known in sorted(state.spaces.items())],
    )
    return STATE_MAGIC + b"%d" % STATE_LAYOUT + pack(msgspec.msgpack.encode(stored), level=3, checksum=True)


def reached(value: bytes) -> dict[int, int]:
    """The offsets that a dumped state has reached, by partition. Raises StateError."""
    return dict(_stored(value).next)


def load(settings: Settings, value: bytes) -> LinkState:
    """A dumped state. Spaces whose artefacts are gone are dropped, and all of them if windows are of another length;
    other artefacts begin the comparison with their population anew. Raises StateError.
    """
    stored = _stored(value)
    state = LinkState(settings, dict(stored.next), closed=stored.closed)
    state.marks = {(partition, source, space): (a, b) for partition, source, space, a, b in stored.marks}
    state.clocks, state.reached, state.cuts = dict(stored.clocks), dict(stored.reached), dict(stored.cuts)
    if stored.window_ms != settings.window_ms:
        state.closed = None
        return state
    same = stored.artefact_hash == settings.artefact_hash
    for space, memory in stored.spaces:
        if space in settings.artefacts:
            state.spaces[space] = _space(settings, space, memory)
            if not same:
                state.spaces[space].forget_population()
    for space, number, sums in stored.open:
        if same and space in settings.artefacts:
            state.open.setdefault(space, {})[number] = _sums(state, space, sums)
    return state


def _stored(value: bytes) -> _Stored:
    magic, digit, packed = value[:3], value[3:4], value[4:]
    if magic != STATE_MAGIC or not digit.isdigit():
        raise DamagedStateError("not a state of link")
    if int(digit) != STATE_LAYOUT:
        raise StateError(
            f"the stored state has layout {int(digit)}, this version reads layout {STATE_LAYOUT}: use the version"
            " that wrote it, or name a new topics.link_state"
        )
    try:
        return msgspec.msgpack.decode(unpack(packed, BODY_BYTES_MIN), type=_Stored)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise DamagedStateError(f"the stored state is damaged: {type(error).__name__}") from error
