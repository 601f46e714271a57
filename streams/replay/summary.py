"""What is counted while history is folded: clients by class and day; for the report, load and inputs by space."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.events.finding import LEVELS
from detector.frame import RowFrame
from models.kernels.fold.client import DAY_MS
from models.rows import CLASSES, I16, I64, U8, U32, U64, Key, Rows, distinct
from streams.history.order import LogOrder, split_clients, topics_of

PENDING_ROWS = 500_000
"""Rows are counted in batches: one frame at a time would cost more here than in the fold."""

SLICE_MS = 5_000
SAMPLE_ROWS = 1_200


class ReachedLevel(NamedTuple):
    """One decision: a client reached a level on a day, counted from 1970."""

    client: int
    day: int
    level: int


class InputSample(NamedTuple):
    """A uniform sample of distinct inputs: those with the smallest keyed hashes."""

    exact: U64  # (k,) keyed hash, rising
    values: I16  # (k, d)
    output: U32  # (k,) hash of the label


class SpaceSummary(NamedTuple):
    """Load, clients and a sample of inputs of one space."""

    model: str
    clients: U64  # (c,) rising
    client_class: U8  # (c,) class of the first row seen
    rows: I64  # (c,) number of rows
    slices: I64  # (m,) number since 1970 of each SLICE_MS that has rows
    busy: I64  # (m,) rows in each slice
    sample: InputSample


@dataclass
class Summary:
    """Counts over frames. Summaries of different partitions add up, since a client's rows are all in one.

    records : raw records, or messages of `requests`. unjudged : rows by reason. skipped : rows read again,
    at positions that were applied. redelivered : rows known again by time and input. evicted : clients dropped for lack
    of room. back : rows that go back in time. topics : of each source. spaces : complete after `flush`.
    """

    records: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    redelivered: int = 0
    evicted: int = 0
    back: int = 0
    topics: dict[int, str] = field(default_factory=dict)
    rows_by_class: I64 = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    keys: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    classes: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    of_day: dict[int, U64] = field(default_factory=dict)
    of_source: dict[int, U64] = field(default_factory=dict)
    spaces: dict[str, SpaceSummary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pending: list[RowFrame] = []
        self._pending_rows = 0

    def add(self, frame: RowFrame) -> None:
        if frame.rows.count:
            self._pending.append(frame)
            self._pending_rows += frame.rows.count
            if self._pending_rows >= PENDING_ROWS:
                self.flush()

    def flush(self) -> None:
        """Count the rows that are still pending."""
        if not self._pending:
            return
        frames, self._pending, self._pending_rows = self._pending, [], 0
        rows = [frame.rows for frame in frames]
        clients, classes = np.concatenate([r.client for r in rows]), np.concatenate([r.client_class for r in rows])
        self.rows_by_class += np.bincount(classes, minlength=len(CLASSES))
        self._add_clients(clients, classes)
        _add_groups(self.of_day, np.concatenate([r.time_ms for r in rows]) // DAY_MS, clients)
        _add_groups(self.of_source, np.concatenate([r.source for r in rows]), clients)
        for frame in frames:
            self.topics |= topics_of(frame)
        for space in {frame.space for frame in frames}:
            of_space = [frame for frame in frames if frame.space == space]
            self._add_space(space, _summarised(of_space[0].model, [frame.rows for frame in of_space]))

    def join(self, other: "Summary") -> None:
        """Add the summary of another partition, or of a later part of the same one."""
        self.flush()
        other.flush()
        self.records += other.records
        self.unjudged += other.unjudged
        self.skipped += other.skipped
        self.redelivered += other.redelivered
        self.evicted += other.evicted
        self.back += other.back
        self.topics |= other.topics
        self.rows_by_class = self.rows_by_class + other.rows_by_class
        self._add_clients(other.keys, other.classes)
        for groups, others in ((self.of_day, other.of_day), (self.of_source, other.of_source)):
            for number, clients in others.items():
                groups[number] = distinct(np.concatenate([groups.get(number, clients[:0]), clients]))
        for name, space in other.spaces.items():
            self._add_space(name, space)

    def _add_clients(self, clients: U64, classes: U8) -> None:
        """A client's class is the class of its first row."""
        keys, classes = np.concatenate([self.keys, clients]), np.concatenate([self.classes, classes])
        self.keys, first = np.unique(keys, return_index=True)
        self.classes = classes[first]

    def _add_space(self, name: str, space: SpaceSummary) -> None:
        before = self.spaces.get(name)
        if before is not None:
            clients, rows, first = _summed(np.r_[before.clients, space.clients], np.r_[before.rows, space.rows])
            client_class = np.r_[before.client_class, space.client_class][first]
            slices, busy, _ = _summed(np.r_[before.slices, space.slices], np.r_[before.busy, space.busy])
            sample = _smallest([before.sample, space.sample])
            space = SpaceSummary(space.model, clients, client_class, rows, slices, busy, sample)
        self.spaces[name] = space

    @property
    def rows(self) -> int:
        self.flush()
        return int(self.rows_by_class.sum())

    @property
    def clients(self) -> int:
        self.flush()
        return len(self.keys)

    @property
    def scattered(self) -> int:
        """Clients whose records are in more than one raw partition."""
        self.flush()
        if len(self.of_source) < 2:
            return 0
        _, sources = np.unique(np.concatenate(list(self.of_source.values())), return_counts=True)
        return int(np.count_nonzero(sources > 1))

    @property
    def order(self) -> LogOrder:
        """How the history lies in time."""
        self.flush()
        return LogOrder(self.rows, self.back, self.clients, split_clients(self.of_source, self.topics))

    def by_class(self, reached: Iterable[ReachedLevel]) -> dict[str, dict[str, int]]:
        """For each class: clients, client-days, rows, and the clients that reached each level or a higher one."""
        self.flush()
        counts = np.bincount(self.classes, minlength=len(CLASSES))
        days = self._client_days()
        at_level = self._count_levels({entry._replace(day=0) for entry in reached})
        return {
            name: {
                "clients": int(counts[number]),
                "client_days": int(days[number]),
                "rows": int(self.rows_by_class[number]),
                **{level_name: at_level[number, level] for level, level_name in enumerate(LEVELS[1:], 1)},
            }
            for number, name in enumerate(CLASSES)
        }

    def alarmed_days(self, reached: Iterable[ReachedLevel]) -> dict[str, dict[str, int]]:
        """For each class and level: client-days on which a decision reached it, or a higher one."""
        self.flush()
        at_level = self._count_levels(set(reached))
        return {
            name: {level_name: at_level[number, level] for level, level_name in enumerate(LEVELS[1:], 1)}
            for number, name in enumerate(CLASSES)
        }

    def clients_on(self, day: int, client_class: str) -> U64:
        """Clients of a class with a row on a day, counted from 1970; rising."""
        self.flush()
        clients = self.of_day.get(day, self.keys[:0])
        of_class: U64 = clients[self.classes[np.searchsorted(self.keys, clients)] == CLASSES.index(client_class)]
        return of_class

    def _client_days(self) -> I64:
        days: I64 = np.zeros(len(CLASSES), np.int64)
        for clients in self.of_day.values():
            days += np.bincount(self.classes[np.searchsorted(self.keys, clients)], minlength=len(CLASSES))
        return days

    def _count_levels(self, reached: Iterable[ReachedLevel]) -> "Counter[tuple[int, int]]":
        """(class, level) -> number of (client, day) that reached the level or a higher one."""
        highest: dict[tuple[int, int], int] = defaultdict(int)
        for client, day, level in reached:
            highest[client, day] = max(level, highest[client, day])
        counts: Counter[tuple[int, int]] = Counter()
        for (client, _), top in highest.items():
            counts.update((self._class_of(client), level) for level in range(1, top + 1))
        return counts

    def _class_of(self, client: int) -> int:
        """Consumer for a client without a row in the range, about which a person gave an order."""
        position = int(np.searchsorted(self.keys, np.uint64(client)))
        exists = position < len(self.keys) and int(self.keys[position]) == client
        return int(self.classes[position]) if exists else 0


def _add_groups(groups: dict[int, U64], numbers: I64, clients: U64) -> None:
    """Add each client once to the group of each of its numbers."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    for positions in np.split(order, starts):
        number = int(numbers[positions[0]])
        groups[number] = distinct(np.concatenate([groups.get(number, clients[:0]), distinct(clients[positions])]))


def _summarised(model: str, parts: Sequence[Rows]) -> SpaceSummary:
    client = np.concatenate([part.client for part in parts])
    clients, first, rows = np.unique(client, return_index=True, return_counts=True)
    client_class = np.concatenate([part.client_class for part in parts])[first]
    slices, busy = np.unique(np.concatenate([part.time_ms for part in parts]) // SLICE_MS, return_counts=True)
    exact = distinct(np.concatenate([part.exact for part in parts]))
    limit = exact[min(SAMPLE_ROWS, len(exact) - 1)]
    samples = [
        InputSample(part.exact[low], part.values[low], part.output[low])
        for part in parts
        if len(low := np.flatnonzero(part.exact <= limit))
    ]
    rows, busy = rows.astype(np.int64), busy.astype(np.int64)
    return SpaceSummary(model, clients, client_class, rows, slices, busy, _smallest(samples))


def _smallest(samples: Sequence[InputSample]) -> InputSample:
    """The first rows of the SAMPLE_ROWS smallest hashes (a bottom-k sample, Cohen, Kaplan 2007)."""
    exact, chosen = np.unique(np.concatenate([sample.exact for sample in samples]), return_index=True)
    chosen = chosen[:SAMPLE_ROWS]
    values = np.concatenate([sample.values for sample in samples])[chosen]
    return InputSample(exact[:SAMPLE_ROWS], values, np.concatenate([sample.output for sample in samples])[chosen])


def _summed(keys: NDArray[Key], counts: I64) -> tuple[NDArray[Key], I64, I64]:
    """Distinct keys, rising; the sum of the counts of each; the position of its first occurrence."""
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return unique, np.bincount(inverse, counts).astype(np.int64), first
