"""Counting: what every gateway can do without looking at inputs, and with one look."""

import numpy as np

from bench.detection.methods.base import Method, View
from models.kernels.jit import making_kernel
from models.rows import F64, I64


def rows_of_day(at: View, reference: View) -> F64:
    day = at.log.day
    starts = np.r_[0, 1 + np.flatnonzero((np.diff(at.log.client) != 0) | (np.diff(day) != 0))]
    lengths = np.diff(np.r_[starts, len(day)])
    number: F64 = 1.0 + np.arange(len(day)) - np.repeat(starts, lengths)
    return number


def rows_of_minute(at: View, reference: View) -> F64:
    found = np.zeros(len(at.exact))
    _within(at.log.time_ms, at.log.starts, 60_000, found)
    return found


def unique_of_day(at: View, reference: View) -> F64:
    """Distinct inputs since midnight."""
    client, day = at.log.client, at.log.day
    order = np.lexsort((np.arange(len(day)), at.exact, day, client))
    first = np.ones(len(day), bool)
    same = (np.diff(client[order]) == 0) & (np.diff(day[order]) == 0) & (at.exact[order][1:] == at.exact[order][:-1])
    first[order[1:]] = ~same
    total = np.cumsum(first)
    before = rows_of_day(at, reference).astype(np.int64) - 1
    begun = np.arange(len(day)) - before
    distinct: F64 = (total - total[begun] + 1).astype(float)
    return distinct


@making_kernel
def _within(time_ms: I64, starts: I64, width_ms: int, found: F64) -> None:
    for c in range(len(starts) - 1):
        first = starts[c]
        for i in range(starts[c], starts[c + 1]):
            while time_ms[i] - time_ms[first] >= width_ms:
                first += 1
            found[i] = i - first + 1


def _bytes(rows: I64, fields: int) -> F64:
    return np.full(len(rows), 24.0)


def _bytes_of_set(rows: I64, fields: int) -> F64:
    held: F64 = (24.0 + 8.0 * rows).astype(np.float64)
    return held


METHODS = (
    Method("daily rate", "rate limit", "requests since midnight UTC", rows_of_day, _bytes),
    Method("rate a minute", "rate limit", "requests within 60 s", rows_of_minute, _bytes),
    Method("unique inputs", "count of distinct inputs", "since midnight UTC", unique_of_day, _bytes_of_set),
)
