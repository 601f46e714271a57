"""What became of a client, row by row: the fold itself, looked at while it works.

    follow(settings, frames, clients) -> (client, space) -> Story
      engine.step with a Watch: evidence of every process after each row, and where decisions fell

Only the rows of the clients asked for are folded: while there is room, others change nothing of what is said of one.
The statistic is put together again from the traced evidence (`Story.excess`), in the one unit in which processes are
compared and thresholds are given: thousandths of a length of the benign tail.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from detector import engine
from detector.engine import EngineSettings, PartitionState
from detector.events.build import name_of
from detector.events.finding import Event, Finding
from detector.evidence import PROCESSES
from detector.frame import ControlFrame, Frame, RowFrame
from models.client_table import ClientTable
from models.kernels.fold.client import DAY_MS
from models.kernels.fold.fold import OFF, threshold_offset
from models.kernels.layout import COUNTS, Nulls, Tally
from models.kernels.numbers import size_bucket
from models.reorder import joined, take
from models.rows import CLASSES, I16, I32, I64, U64, UNIT, Rows, class_of

NEAREST_AMONG = 256
"""Earlier rows among which the nearest is sought; a family's own references are fewer."""

_UNTOUCHED = np.iinfo(np.int32).min
"""Stands in the trace of a row that the fold passed over."""


class Step(NamedTuple):
    """One row of a client as the fold saw it.

    statistic : thousandths, before thresholds; evidence : milli-nats (counts: thousandths) of each process. label :
    hash, 0 for none. score, margin, novelty : None where there is none. values : (d,). changed : fields that differ
    from the nearest earlier row, () for embeddings. nearest : number of that row among the moments, None for a first
    one. distance : to it, in standard units of the encoder.
    """

    number: int
    time_ms: int
    source: str
    offset: int
    index: int  # type: ignore[assignment]  # as in Rows
    request_id: str
    rows_seen: int
    statistic: int
    evidence: dict[str, int]
    score: float | None
    margin: float | None
    label: int
    flags: int
    novelty: float | None
    cell: int
    values: I16
    changed: tuple[str, ...]
    nearest: int | None
    distance: float


class DecisionAt(NamedTuple):
    """A decision. at : number of the moment at which it fell; of an order, of the last moment before it, -1 if none."""

    at: int
    finding: Finding


class Order(NamedTuple):
    """What a person ordered. at : as in Fallen."""

    at: int
    frame: ControlFrame


@dataclass(frozen=True)
class Trace:
    """One client in one space, from the first frame on. n rows; those that the fold skipped are not among them.

    rows : (n,) sources : (n,) names of raw partitions. rows_seen : (n,) the client's rows up to each. rows_today : (n,)
    evidence : (n, processes) statistic : (n,), see Moment. thresholds : by level 0 to 4, of this client, thousandths.
    events : all that fell at its rows, in order, with the client's drift and what a lift took back.
    """

    client: str
    key: int
    model: str
    space: str
    client_class: str
    field_names: tuple[str, ...]
    nulls: Nulls
    rows: Rows
    sources: tuple[str, ...]
    rows_seen: I64
    rows_today: I64
    evidence: I32
    statistic: I64
    thresholds: tuple[int, ...]
    findings: tuple[DecisionAt, ...]
    orders: tuple[Order, ...]
    events: tuple[Event, ...]

    @cached_property
    def excess(self) -> I64:
        """(n, processes) thousandths beyond each process's own benign quantile, of bets less what activity explains;
        OFF where a process is not used. The largest of a row is its statistic."""
        client_class = np.minimum(2, self.rows.client_class)
        tail, scale = self.nulls.tail[client_class], self.nulls.tail_scale[client_class]
        beyond = (self.evidence.astype(np.int64) - tail) * 1000 // np.maximum(scale, 1)
        buckets = np.array([size_bucket(int(rows)) for rows in self.rows_today], np.int64)
        bets = len(PROCESSES) - len(COUNTS)
        beyond[:, :bets] -= self.nulls.growth[client_class, buckets][:, None]
        return np.where(scale > 0, beyond, OFF)

    def nearest(self, row: int) -> tuple[int, int, int]:
        """Place of the nearest earlier row (-1 for none), fields that differ from it, and its squared distance.

        Nearest is what differs in fewest fields, then what is least far; of equals the latest.
        """
        if row == 0:
            return -1, 0, 0
        differ, apart = self.apart(row)
        best = len(differ) - 1 - int(np.lexsort((apart[::-1], differ[::-1]))[0])
        return row - len(differ) + best, int(differ[best]), int(apart[best])

    def apart(self, row: int) -> tuple[I64, I64]:
        """(k,) each, for the k rows before: fields that differ, and the squared distance."""
        rows, before = self.rows, slice(max(0, row - NEAREST_AMONG), row)
        differ = np.count_nonzero(rows.fields[before] != rows.fields[row], axis=1)
        steps = rows.values[before].astype(np.int64) - rows.values[row]
        return differ, np.square(steps).sum(axis=1)

    def moment(self, number: int) -> Step:
        """A row, by its place among the rows."""
        rows, (near, _, distance2) = self.rows, self.nearest(number)
        differ = np.flatnonzero(rows.fields[number] != rows.fields[near]).tolist() if near >= 0 else []
        return Step(
            number, int(rows.time_ms[number]), self.sources[number], int(rows.offset[number]), int(rows.index[number]),
            rows.request_id(number), int(self.rows_seen[number]), int(self.statistic[number]),
            {process.name: int(found) for process, found in zip(PROCESSES, self.evidence[number], strict=True)},
            _known(rows.score[number]), _known(rows.margin[number]), int(rows.output[number]), int(rows.flags[number]),
            _known(rows.novelty[number]), int(rows.cell[number]), rows.values[number],
            tuple(self.field_names[i] for i in differ), near if near >= 0 else None,
            math.sqrt(distance2) / UNIT,
        )  # fmt: skip

    @property
    def moments(self) -> Sequence[Step]:
        return [self.moment(number) for number in range(self.rows.count)]


def follow(
    settings: EngineSettings,
    frames: Iterable[Frame],
    clients: Collection[int],
    *,
    states: Mapping[int, PartitionState] | None = None,
) -> dict[tuple[int, str], Trace]:
    """Fold what concerns some clients, and keep all of it: (client, space) -> its story. Without rows there is none.

    frames : of any partitions, in the order of each. states : where to begin, by partition; they are folded on.
    """
    wanted = np.fromiter(clients, np.uint64, len(clients))
    partitions = dict(states or {})
    tracer = _Tracer(settings)
    for frame in frames:
        about = _about(frame, wanted)
        if about is None:
            continue
        if about.partition not in partitions:
            partitions[about.partition] = engine.open_partition(settings, about.partition)
        tracer.step(partitions[about.partition], about)
    return {(key, space): thread.story(settings) for (key, space), thread in tracer.threads.items() if thread.parts}


def _about(frame: Frame, wanted: U64) -> Frame | None:
    """What of a frame concerns the wanted clients; shifts concern everybody."""
    if isinstance(frame, ControlFrame):
        return frame if np.uint64(frame.client) in wanted else None
    if isinstance(frame, RowFrame):
        chosen = np.flatnonzero(np.isin(frame.rows.client, wanted))
        if not len(chosen):
            return None
        return frame if len(chosen) == frame.rows.count else replace(frame, rows=take(frame.rows, chosen))
    return frame


class _Part(NamedTuple):
    """A client's rows of one frame, as in Story."""

    rows: Rows
    sources: list[str]
    rows_seen: I64
    rows_today: I64
    evidence: I32
    statistic: I64


@dataclass
class _Thread:
    """What is known so far of a client in a space."""

    frame: RowFrame | None = None
    parts: list[_Part] = field(default_factory=list)
    count: int = 0
    findings: list[DecisionAt] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def story(self, settings: EngineSettings) -> Trace:
        assert self.frame is not None
        space = settings.spaces[self.frame.space]
        rows = joined([part.rows for part in self.parts])
        client_class, key = class_of(rows.client_class[-1]), int(rows.client[-1])
        offset = threshold_offset(np.uint64(key))
        return Trace(
            client=name_of(self.frame, int(np.flatnonzero(self.frame.rows.client == np.uint64(key))[0])),
            key=key,
            model=self.frame.model,
            space=self.frame.space,
            client_class=CLASSES[client_class],
            field_names=space.artefact.encoder.field_names,
            nulls=space.nulls,
            rows=rows,
            sources=tuple(source for part in self.parts for source in part.sources),
            rows_seen=np.concatenate([part.rows_seen for part in self.parts]),
            rows_today=np.concatenate([part.rows_today for part in self.parts]),
            evidence=np.concatenate([part.evidence for part in self.parts]),
            statistic=np.concatenate([part.statistic for part in self.parts]),
            thresholds=tuple(int(threshold) + offset for threshold in space.nulls.thresholds[client_class]),
            findings=tuple(self.findings),
            orders=tuple(self.orders),
            events=tuple(self.events),
        )


class _Tracer:
    """The fold's watch: follows every client of the frames that it is given."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.threads: dict[tuple[int, str], _Thread] = defaultdict(_Thread)
        self._tally: Tally | None = None
        self._before: dict[int, tuple[int, int, int]] = {}
        self._fallen: list[tuple[int, Finding, list[Event]]] = []

    def tally(self, frame: RowFrame, table: ClientTable, nothing: Tally) -> Tally:
        n, processes = frame.rows.count, nothing.evidence.shape[1]
        statistic = np.full(n, _UNTOUCHED, np.int32)
        self._tally = nothing._replace(evidence=np.zeros((n, processes), np.int32), statistic=statistic)
        self._before = {int(key): _standing(table, int(key)) for key in np.unique(frame.rows.client)}
        return self._tally

    def on_decision(self, frame: RowFrame | ControlFrame, row: int, finding: Finding, events: list[Event]) -> None:
        if isinstance(frame, RowFrame):
            self._fallen.append((row, finding, events))
        else:
            thread = self.threads[finding.client_key, finding.space]
            thread.findings.append(DecisionAt(thread.count - 1, finding))
            thread.events += events

    def step(self, state: PartitionState, frame: Frame) -> None:
        self._tally, self._fallen = None, []
        if isinstance(frame, ControlFrame):
            for name, space in self._settings.spaces.items():
                if frame.model in ("", space.artefact.model):
                    thread = self.threads[frame.client, name]
                    thread.orders.append(Order(thread.count - 1, frame))
        events = engine.step(state, frame, self)
        if isinstance(frame, RowFrame) and self._tally is not None:
            for event in events:
                self.threads[event.client_key, frame.space].events.append(event)
            self._keep(frame, self._tally)

    def _keep(self, frame: RowFrame, tally: Tally) -> None:
        for key, (rows, day, today) in self._before.items():
            chosen = np.flatnonzero((frame.rows.client == np.uint64(key)) & (tally.statistic != _UNTOUCHED))
            if not len(chosen):
                continue
            thread, own = self.threads[key, frame.space], take(frame.rows, chosen)
            for row, finding, _ in self._fallen:
                if finding.client_key == key:
                    thread.findings.append(DecisionAt(thread.count + int(np.searchsorted(chosen, row)), finding))
            thread.frame = thread.frame or frame
            seen = rows + np.arange(1, len(chosen) + 1)
            days, statistic = _rows_of_day(own.time_ms, day, today), tally.statistic[chosen].astype(np.int64)
            sources = [frame.source_of(row) for row in chosen.tolist()]
            thread.parts.append(_Part(own, sources, seen, days, tally.evidence[chosen], statistic))
            thread.count += len(chosen)


def _standing(table: ClientTable, key: int) -> tuple[int, int, int]:
    """A client's rows so far, its clock and its rows of that day."""
    slot = table.find(key)
    if slot < 0:
        return 0, 0, 0
    client = table.table.clients[slot]
    return int(client["rows"]), int(client["clock_ms"]), int(client["rows_today"])


def _rows_of_day(time_ms: I64, clock_ms: int, today: int) -> I64:
    """How many rows each day of the client's own clock has seen, with each of these. today : before them."""
    days = np.maximum(np.maximum.accumulate(time_ms), clock_ms) // DAY_MS
    number = np.arange(len(days)) - np.searchsorted(days, days) + 1
    if today == 0:
        return number
    return number + np.where(days == clock_ms // DAY_MS, today, 0)


def _known(number: np.float32) -> float | None:
    return None if np.isnan(number) else float(number)
