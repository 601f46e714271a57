"""Who was there: clients by class, and the days on which they were."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from detector.events.finding import LEVELS
from detector.frame import RowFrame
from models.kernels.fold.client import DAY_MS
from models.rows import CLASSES, I64, U8, U64, distinct
from streams.replay.checkpoint import KeptCensus
from streams.replay.survey import Survey

GATHERED_ROWS = 500_000
"""Rows are sorted out together: by frame a small one would cost more here than in the fold."""


class Reached(NamedTuple):
    """One decision: that a client came to a level on a day, since 1970."""

    client: int
    day: int
    level: int


class Census:
    """Counts the rows of frames. Clients of one partition are in no other, so censuses of partitions add up.

    survey : for a report; complete once rows have been counted.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._rows_by_class: I64 = np.zeros(len(CLASSES), np.int64)
        self._clients: U64 = np.zeros(0, np.uint64)
        self._classes: U8 = np.zeros(0, np.uint8)
        self._of_day: dict[int, U64] = {}
        self._of_source: dict[int, U64] = {}
        self.survey = Survey()
        self._frames: list[RowFrame] = []
        self._gathered = 0

    def add(self, frame: RowFrame) -> None:
        if not frame.rows.count:
            return
        self._frames.append(frame)
        self._gathered += frame.rows.count
        if self._gathered >= GATHERED_ROWS:
            self._sort_out()

    def _sort_out(self) -> None:
        if not self._frames:
            return
        rows = [frame.rows for frame in self._frames]
        clients, classes = np.concatenate([r.client for r in rows]), np.concatenate([r.client_class for r in rows])
        self._rows += len(clients)
        self._rows_by_class += np.bincount(classes, minlength=len(CLASSES))
        self._meet(clients, classes)
        _add_groups(self._of_day, np.concatenate([r.time_ms for r in rows]) // DAY_MS, clients)
        _add_groups(self._of_source, np.concatenate([r.source for r in rows]), clients)
        self.survey.add(self._frames)
        self._frames, self._gathered = [], 0

    def _meet(self, clients: U64, classes: U8) -> None:
        """A client's class is the one it was first seen in."""
        known, met = np.concatenate([self._clients, clients]), np.concatenate([self._classes, classes])
        self._clients, first = np.unique(known, return_index=True)
        self._classes = met[first]

    def dump(self) -> KeptCensus:
        self._sort_out()
        of_day, of_source = (
            {number: clients.tobytes() for number, clients in groups.items()}
            for groups in (self._of_day, self._of_source)
        )
        by_class: list[int] = self._rows_by_class.tolist()
        clients, classes = self._clients.tobytes(), self._classes.tobytes()
        return KeptCensus(self._rows, by_class, clients, classes, of_day, of_source, self.survey.dump())

    @classmethod
    def load(cls, kept: KeptCensus) -> "Census":
        census = cls()
        census._rows, census._rows_by_class = kept.rows, np.array(kept.rows_by_class, np.int64)
        census._clients = np.frombuffer(kept.clients, np.uint64)
        census._classes = np.frombuffer(kept.classes, np.uint8)
        census.survey = Survey.load(kept.survey)
        for mine, theirs in ((census._of_day, kept.of_day), (census._of_source, kept.of_source)):
            mine.update((number, np.frombuffer(clients, np.uint64)) for number, clients in theirs.items())
        return census

    def join(self, other: "Census") -> None:
        """Add what another partition, or a later stretch of this one, has seen."""
        self._sort_out()
        other._sort_out()
        self.survey.join(other.survey)
        self._rows += other._rows
        self._rows_by_class += other._rows_by_class
        self._meet(other._clients, other._classes)
        for mine, theirs in ((self._of_day, other._of_day), (self._of_source, other._of_source)):
            for number, clients in theirs.items():
                mine[number] = distinct(np.concatenate([mine.get(number, clients[:0]), clients]))

    @property
    def rows(self) -> int:
        return self._rows + self._gathered

    @property
    def clients(self) -> int:
        self._sort_out()
        return len(self._clients)

    @property
    def scattered(self) -> int:
        """Clients whose records stand in more than one raw partition."""
        self._sort_out()
        if len(self._of_source) < 2:
            return 0
        _, sources = np.unique(np.concatenate(list(self._of_source.values())), return_counts=True)
        return int(np.count_nonzero(sources > 1))

    def by_class(self, reached: Iterable[Reached]) -> dict[str, dict[str, int]]:
        """For each class: clients, client-days, rows, and how many clients ever reached each rung or a higher one."""
        self._sort_out()
        counts = np.bincount(self._classes, minlength=len(CLASSES))
        days = self._client_days()
        top = self._by_level({entry._replace(day=0) for entry in reached})
        return {
            name: {
                "clients": int(counts[number]),
                "client_days": int(days[number]),
                "rows": int(self._rows_by_class[number]),
                **{level: top[number, rung] for rung, level in enumerate(LEVELS[1:], 1)},
            }
            for number, name in enumerate(CLASSES)
        }

    def alarmed_days(self, reached: Iterable[Reached]) -> dict[str, dict[str, int]]:
        """For each class and rung: client-days on which a decision reached it, or a higher one."""
        self._sort_out()
        top = self._by_level(set(reached))
        return {
            name: {level: top[number, rung] for rung, level in enumerate(LEVELS[1:], 1)}
            for number, name in enumerate(CLASSES)
        }

    def clients_on(self, day: int, name: str) -> U64:
        """Clients of a class that were there on a day, since 1970; rising."""
        self._sort_out()
        there = self._of_day.get(day, self._clients[:0])
        found: U64 = there[self._classes[np.searchsorted(self._clients, there)] == CLASSES.index(name)]
        return found

    def _client_days(self) -> I64:
        days: I64 = np.zeros(len(CLASSES), np.int64)
        for clients in self._of_day.values():
            days += np.bincount(self._classes[np.searchsorted(self._clients, clients)], minlength=len(CLASSES))
        return days

    def _by_level(self, reached: Iterable[Reached]) -> "Counter[tuple[int, int]]":
        """(class, rung) -> how many (client, day) came to the rung or a higher one."""
        highest: dict[tuple[int, int], int] = defaultdict(int)
        for client, day, level in reached:
            highest[client, day] = max(level, highest[client, day])
        found: Counter[tuple[int, int]] = Counter()
        for (client, _), top in highest.items():
            found.update((self._class_of(client), rung) for rung in range(1, top + 1))
        return found

    def _class_of(self, client: int) -> int:
        """Of a client that a person ordered about without any row of it in the range: a consumer."""
        place = int(np.searchsorted(self._clients, np.uint64(client)))
        known = place < len(self._clients) and int(self._clients[place]) == client
        return int(self._classes[place]) if known else 0


def _add_groups(groups: dict[int, U64], numbers: I64, clients: U64) -> None:
    """Put each client once under each number it stands beside."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    for places in np.split(order, starts):
        number = int(numbers[places[0]])
        groups[number] = distinct(np.concatenate([groups.get(number, clients[:0]), distinct(clients[places])]))
