"""Rows to client-days: the maxima that each client reached on each of its days."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.evidence import PROCESSES
from models.client_shares import WEIGHT, limited_weights, quantiles
from models.kernels.fold.client import DAY_MS
from models.kernels.layout import CLASS_COUNT, SIZE_BUCKETS, Tally
from models.kernels.numbers import size_bucket
from models.rows import F64, I32, I64, U64, Rows

GROWTH_DAYS_MIN = 200


class DailyMaxima(NamedTuple):
    """One entry per client-day (k,). Days are UTC days on the client's own clock, the latest time it has shown."""

    client: U64
    client_class: I64
    day: I64
    statistic: I64  # largest of the day, thousandths of a tail length; evidence from earlier days counts
    variants: I64  # of the client's largest family
    rows: I64  # of the day
    novelty: F64  # mean of the day's rows, NaN if none has one
    behaviour: U64  # hash of the day's largest evidence of every process; equal if two clients did the same
    drift: I64  # largest distance of the client's averages, -1 if they were never compared


class Days(NamedTuple):
    """Maxima over k client-days."""

    client_class: I64  # (k,)
    client: U64  # (k,)
    day: I64  # (k,)
    evidence: I32  # (k, processes)
    statistic: I64  # (k,)
    rows: I64  # (k,)
    novelty: F64  # (k,) mean, or NaN
    drift: I64  # (k,) -1 for none


def select(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    """Some rows of a batch, without their request ids."""
    ids = (np.zeros(int(chosen.sum()) + 1, np.int32), np.zeros(0, np.uint8))
    columns = {name: getattr(rows, name)[chosen] for name in Rows._fields if not name.startswith("id_")}
    return Rows(id_offsets=ids[0], id_bytes=ids[1], **columns)


def once(batches: Sequence[Rows]) -> list[Rows]:
    """Without what was delivered again, as the fold knows it: of one client, time and input only the first row."""
    if not batches:
        return []
    columns = [np.concatenate([getattr(rows, name) for rows in batches]) for name in ("exact", "time_ms", "client")]
    order = np.lexsort(columns)  # stable: the first of equals stays the first
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    again = np.zeros(len(order), np.bool_)
    again[order[1:][same]] = True
    parts = np.split(again, np.cumsum([rows.count for rows in batches])[:-1])
    return [select(rows, ~part) if part.any() else rows for rows, part in zip(batches, parts, strict=True)]


def first_rows(batches: Sequence[Rows], most: int) -> list[Rows]:
    """The first rows of each client."""
    if not batches:
        return []
    _, place = np.unique(np.concatenate([rows.client for rows in batches]), return_inverse=True)
    number = np.split(_running_count(place.reshape(-1)), np.cumsum([rows.count for rows in batches])[:-1])
    return [select(rows, numbers <= most) for rows, numbers in zip(batches, number, strict=True)]


def by_day(batches: Sequence[Rows], tallies: Sequence[Tally]) -> tuple[Days, I64]:
    """Maxima over client-days in order of (client, day), and growth (3, 21). tallies : of each batch."""
    if not sum(rows.count for rows in batches):
        nothing = np.zeros(0, np.int64)
        none = np.zeros((0, len(PROCESSES)), np.int32)
        nobody, unknown = nothing.astype(np.uint64), nothing.astype(np.float64)
        empty = Days(nothing, nobody, nothing, none, nothing, nothing, unknown, nothing)
        return empty, np.zeros((CLASS_COUNT, SIZE_BUCKETS), np.int64)
    client = np.concatenate([rows.client for rows in batches])
    day = _own_days(client, np.concatenate([rows.time_ms for rows in batches]))
    client_class = np.minimum(CLASS_COUNT - 1, np.concatenate([rows.client_class for rows in batches])).astype(np.int64)
    novelty = np.concatenate([rows.novelty for rows in batches]).astype(np.float64)
    statistic = np.concatenate([tally.statistic for tally in tallies]).astype(np.int64)
    traced = np.concatenate([tally.evidence for tally in tallies])
    keys, place = np.unique(np.stack([client, day.astype(np.uint64)]), axis=1, return_inverse=True)
    place = place.reshape(-1)
    count = keys.shape[1]
    most = np.full((count, traced.shape[1]), np.iinfo(np.int32).min, np.int32)
    np.maximum.at(most, place, traced)
    largest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(largest, place, statistic)
    class_of = np.zeros(count, np.int64)
    class_of[place] = client_class
    furthest = np.full(count, -1)
    np.maximum.at(furthest, place, np.concatenate([tally.drift for tally in tallies]))
    rows_of = np.bincount(place, minlength=count).astype(np.int64)
    known = ~np.isnan(novelty)
    sums, with_novelty = (np.bincount(place[known], w, count) for w in (novelty[known], None))
    mean = np.divide(sums, with_novelty, out=np.full(count, np.nan), where=with_novelty > 0)
    days = Days(class_of, keys[0], keys[1].astype(np.int64), most, largest, rows_of, mean, furthest)
    return days, _growth(place, client_class, statistic, keys[0])


def _own_days(client: U64, time_ms: I64) -> I64:
    """(n,) the day of each row on its client's clock, which never goes back, as in the fold. Rows in order."""
    _, place = np.unique(client, return_inverse=True)
    order = np.argsort(place, kind="stable")
    day = time_ms[order] // DAY_MS
    base = place[order] * (int(np.ptp(day)) + 1)  # keeps the days of one client apart from the next one's
    own = np.empty(len(day), np.int64)
    own[order] = np.maximum.accumulate(day + base) - base
    return own


def behaviour(most: I32) -> U64:
    """(k,) a hash of each row of (k, processes)."""
    mixed = np.zeros(len(most), np.uint64)
    for column in most.T:
        mixed = (mixed ^ column.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def _growth(place: I64, client_class: I64, statistic: I64, client: U64) -> I64:
    """99 % quantile of the statistic in doubling buckets of the day's row number, at least 0, never falling.

    It is subtracted from the statistic, so that a day does not alarm for its length. Buckets that few client-days
    reach keep the last value; a client with very many days counts as ten average ones. place : (n,) client-day of each
    row, rows in order. client : (k,) whose day each one is.
    """
    number = _running_count(place)
    bucket = np.array([size_bucket(count) for count in range(int(number.max(initial=0)) + 1)], np.int64)[number]
    growth = np.zeros((CLASS_COUNT, SIZE_BUCKETS), np.int64)
    for k in range(CLASS_COUNT):
        last = 0
        for b in range(SIZE_BUCKETS):
            chosen = (client_class == k) & (bucket == b)
            if chosen.any():
                days, at = np.unique(place[chosen], return_inverse=True)
                most = np.full(len(days), np.iinfo(np.int64).min)
                np.maximum.at(most, at, statistic[chosen])
                weights = limited_weights(client[days])
                if int(weights.sum()) >= GROWTH_DAYS_MIN * WEIGHT:
                    last = max(last, int(quantiles(most, weights, (0.99,))[0]))
            growth[k, b] = last
    return growth


def _running_count(place: I64) -> I64:
    """1, 2, 3 … within each group, in order of appearance."""
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1] if len(ordered) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    count = np.empty(len(place), np.int64)
    count[order] = np.arange(len(ordered)) - np.repeat(starts, lengths) + 1
    return count
