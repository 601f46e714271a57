"""Event time of the log of `requests`: which rows are new, how far time has come, and what is closed.

    admit(frame)      a frame's new rows, with the clock and the cut of their partition
    cut(frame)        a CloseFrame: rows behind it in its partition are too late for the windows it closes
    horizon(behind)   event time that every partition and every raw partition has passed

Time is what records say. A partition's clock is the median time of its last fifteen clients, so that one wrong clock
moves nothing. A row counts once, by its position in its raw partition: neither the order of partitions nor redelivery
changes what is admitted. A row is late by its position in the log, behind a CloseFrame, independent of the
reader.
"""

import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.frame import CloseFrame, RowFrame
from models.rows import I32, I64, Rows

CLOCK_CLIENTS = 15
CLOCK_ROWS = 64
AHEAD_MS = 86_400_000
"""Rows further ahead of their partition's clock are not counted: no forged time holds a window open for years."""

UNITS_MAX = 65_536
"""Limit of marks, since writers of frames choose the names of sources. The least recently seen marks are dropped."""

NEVER_MS = -(2**62)


class Admitted(NamedTuple):
    """New rows, with their partition's clock and cut at that moment. cut_ms : NEVER_MS before the first CloseFrame."""

    rows: Rows
    clock_ms: int
    cut_ms: int


class StoredTime(msgspec.Struct):
    """An EventTime in a stored state."""

    marks: list[tuple[int, int, str, int, int]]
    clocks: list[tuple[int, list[tuple[int, int]]]]
    reached: list[tuple[int, int]]
    cuts: list[tuple[int, int]]


class EventTime:
    """Of all partitions.

    marks : (partition, source, space) -> position of the last row admitted.
    clocks : partition -> (client, time_ms) of the last clients.
    reached : source -> time_ms.
    cuts : partition -> event time, ms, of the furthest CloseFrame.
    """

    def __init__(self, lateness_s: int, patience_s: int, stored: StoredTime | None = None) -> None:
        """lateness_s : how far event time must have passed a window's end before it is closed.
        patience_s : partitions and raw partitions further behind the median partition are not waited for.
        """
        self._lateness_ms = 1_000 * lateness_s
        self._patience_ms = 1_000 * patience_s
        stored = stored or StoredTime([], [], [], [])
        self.marks = {(partition, source, space): (a, b) for partition, source, space, a, b in stored.marks}
        self.clocks = dict(stored.clocks)
        self.reached = dict(stored.reached)
        self.cuts = dict(stored.cuts)

    def dump(self) -> StoredTime:
        return StoredTime(
            sorted((*unit, *mark) for unit, mark in self.marks.items()),
            sorted(self.clocks.items()),
            sorted(self.reached.items()),
            sorted(self.cuts.items()),
        )

    def cut(self, frame: CloseFrame) -> None:
        """A CloseFrame was met in its partition."""
        self.cuts[frame.partition] = max(frame.until_ms, self.cuts.get(frame.partition, frame.until_ms))

    def admit(self, frame: RowFrame) -> Admitted | None:
        """A frame's new rows, None if there are none. Moves marks and clocks."""
        if not frame.rows.count:
            return None
        rows = self._fresh(frame)
        if not rows.count:
            return None
        clock_ms = self._advance(frame.partition, rows)
        self._reach(rows)
        return Admitted(rows, clock_ms, self.cuts.get(frame.partition, NEVER_MS))

    def horizon(self, behind: Collection[int]) -> int | None:
        """Event time, ms, that everything awaited has passed; None while a partition that is behind is unread.

        behind : partitions with records that are known and not yet read; always waited for. Other partitions, and raw
        partitions, are waited for unless they are more than `patience_s` behind the median partition.
        """
        clocks = {partition: _clock(recent) for partition, recent in self.clocks.items()}
        if not clocks or any(partition not in clocks for partition in behind):
            return None
        now = sorted(clocks.values())[len(clocks) // 2]
        oldest = now - self._patience_ms
        awaited = [clock for partition, clock in clocks.items() if partition in behind or clock > oldest]
        awaited += [time_ms for time_ms in self.reached.values() if time_ms > oldest]
        return min([now, *awaited]) - self._lateness_ms

    def _fresh(self, frame: RowFrame) -> Rows:
        """Rows above the marks of their raw partitions; moves the marks. Files may hold a stretch twice."""
        rows, seen = frame.rows, np.zeros(frame.rows.count, np.bool_)
        for start, stop in _stretches(rows):
            unit = (frame.partition, int(rows.source[start]), frame.space)
            mark = self.marks.get(unit, (-1, -1))
            offset, index = rows.offset[start:stop], rows.index[start:stop]
            if (int(offset[0]), int(index[0])) > mark and _rise(offset, index):
                mark = int(offset[-1]), int(index[-1])
            else:
                for row, position in enumerate(zip(offset.tolist(), index.tolist(), strict=True), start):
                    seen[row] = position <= mark
                    mark = max(mark, position)
            _keep_last(self.marks, unit, mark)
        return chosen(rows, ~seen) if seen.any() else rows

    def _advance(self, partition: int, rows: Rows) -> int:
        """Move the partition's clock, and return it."""
        clients, times = rows.client[-CLOCK_ROWS:].tolist(), rows.time_ms[-CLOCK_ROWS:].tolist()
        latest: dict[int, int] = {}
        for client, time_ms in zip(reversed(clients), reversed(times), strict=True):
            latest.setdefault(client, time_ms)
            if len(latest) == CLOCK_CLIENTS:
                break
        former = [entry for entry in self.clocks.get(partition, []) if entry[0] not in latest]
        self.clocks[partition] = (former + list(reversed(latest.items())))[-CLOCK_CLIENTS:]
        return _clock(self.clocks[partition])

    def _reach(self, rows: Rows) -> None:
        """How far raw partitions have come: the median time of the last rows of each."""
        for start, stop in _stretches(rows):
            source = int(rows.source[start])
            times = sorted(rows.time_ms[max(start, stop - CLOCK_ROWS) : stop].tolist())
            reached = times[(len(times) - 1) // 2]
            _keep_last(self.reached, source, max(reached, self.reached.get(source, reached)))


def in_time(time_ms: I64, clock_ms: I64, cut_ms: I64, window_ms: int, closed: int | None) -> NDArray[np.bool_]:
    """Which rows still count. All arrays (n,): time of the row; clock and cut of its partition when it was admitted.

    closed : windows below this number are closed everywhere; None before the first.
    """
    first = np.maximum(NEVER_MS if closed is None else closed, cut_ms // window_ms)
    return (time_ms // window_ms >= first) & (time_ms <= clock_ms + AHEAD_MS)


def chosen(rows: Rows, which: Any) -> Rows:
    """Some rows, without request ids. which : any index of numpy."""
    columns = {name: column[which] for name, column in rows._asdict().items() if not name.startswith("id_")}
    return rows._replace(**columns)


def _stretches(rows: Rows) -> list[tuple[int, int]]:
    """[start, stop) of consecutive rows of one raw partition."""
    cuts = [0, *(np.flatnonzero(rows.source[1:] != rows.source[:-1]) + 1).tolist(), rows.count]
    return list(itertools.pairwise(cuts))


def _rise(offset: I64, index: I32) -> bool:
    """Whether each position is behind the one before it; mostly each row is a record of its own."""
    if (offset[1:] > offset[:-1]).all():
        return True
    forward, within = np.diff(offset), np.diff(index)
    return bool(((forward > 0) | ((forward == 0) & (within > 0))).all())


def _keep_last(table: dict[Any, Any], key: Any, value: Any) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > UNITS_MAX:
        del table[next(iter(table))]


def _clock(recent: Sequence[tuple[int, int]]) -> int:
    return sorted(time_ms for _, time_ms in recent)[(len(recent) - 1) // 2]
