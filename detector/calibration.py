"""Fit the reference of one space on benign rows, with the fold itself: what is counted is what will be judged.

Three in eight clients fit tables, tails and growth; the others, disjoint, give the thresholds (certification.py).
Records of one client never stand on both sides, or the thresholds would promise too much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector import evidence
from detector.evidence import FAMILY_PROCESSES, JOINT, PROCESSES
from models.certificate import BUDGETS
from models.clients import ClientTable, no_tally
from models.encoders.base import Encoder
from models.kernels.fold import DAY_MS
from models.kernels.layout import BUCKETS, CLASS_COUNT, LEVELS, VERDICT, Tally
from models.kernels.numbers import size_bucket
from models.reference import Reference
from models.rows import F32, F64, I32, I64, U64, Rows

UNREACHABLE = 1 << 40
UNBOUNDED = 1 << 60
LOW_MARGIN_SHARE = 0.1
OWN_MARGINS_MIN = 200
OWN_DAYS_MIN = 50
GROWTH_DAYS_MIN = 200
TAIL_SCALE_MIN = {"offgrid": 2000, "unique": 1000, "family_size": 1000}
"""Milli-nats; for the two that count, thousandths of an input."""
TAIL_SCALE_MIN_OTHERS = 300
CONSUMER = 0
COLD_ROWS = 10
"""Without trusted history each client teaches by its first rows only."""


class DailyMaxima(NamedTuple):
    """One entry per client-day (k,). A day is one of UTC on the client's own clock: the latest time it ever showed.

    statistic : the largest of the day, thousandths of a tail length; what earlier days left behind counts. variants :
    of the client's largest family. rows : of the day. novelty : mean of the day's rows, NaN where none has one.
    behaviour : hash of the day's largest evidence of every process; equal where two clients did the same.
    """

    client: U64
    klass: I64
    day: I64
    statistic: I64
    variants: I64
    rows: I64
    novelty: F64
    behaviour: U64


@dataclass(frozen=True, slots=True)
class _Days:
    """Maxima over client-days. klass : (k,); client : (k,); day : (k,); evidence : (k, processes); statistic : (k,);
    rows : (k,); novelty : (k,), mean."""

    klass: I64
    client: U64
    day: I64
    evidence: I32
    statistic: I64
    rows: I64
    novelty: F64


def is_fitting(clients: U64) -> NDArray[np.bool_]:
    """Which clients fit and which certify, by three bits of their keyed hash: 3 of 8 fit.

    Certifying takes more: a budget of 1e-4 needs 9,999 clients, tables are full with a few hundred.
    """
    chosen: NDArray[np.bool_] = ((clients >> np.uint64(41)) & np.uint64(7)) < 3
    return chosen


def fit_reference(
    encoder: Encoder,
    decision_threshold: float | None,
    batches: Sequence[Rows],
    *,
    cold: bool = False,
    prune: Callable[[Reference], Reference] | None = None,
) -> Reference:
    """Reference of one space, without thresholds: it never alarms until it is certified.

    batches : rows of one source each, sources in the order they are to be read; only fitting clients' rows are used.
    cold : the history is not known to be benign, so no client may teach much.
    prune : takes bets out of the tables before tails are measured; the benchmark leaves features out with it.
    """
    batches = first_rows(batches) if cold else batches
    fitting = [select(rows, is_fitting(rows.client)) for rows in batches]
    run = _Run(encoder, decision_threshold)
    reference = _blank(len(encoder.field_names), _low_margins(fitting))
    margin, offgrid = _client_ratios(fitting, reference.low_margin)
    reference = replace(reference, margin=margin, offgrid=offgrid)
    changed = run.changed_fields(reference, fitting)
    reference = replace(reference, rarity=evidence.rarities(np.tile(changed, (CLASS_COUNT, 1))))
    family, field = run.count(reference, fitting)
    reference = replace(reference, family=evidence.family_ratios(family), field=evidence.field_ratios(field))
    reference = prune(reference) if prune is not None else reference
    days, _ = run.trace(reference, fitting)
    tail, tail_scale = _tails(days)
    if cold:  # counts of inputs cannot be learned from the first few
        tail_scale[:, [process.name in ("unique", "family_size") for process in PROCESSES]] = 0
    reference = replace(reference, tail=tail, tail_scale=tail_scale)
    _, growth = run.trace(reference, fitting)
    return replace(reference, growth=growth)


def daily_maxima(
    encoder: Encoder, decision_threshold: float | None, reference: Reference, batches: Sequence[Rows]
) -> DailyMaxima:
    """What every client of `batches` came to on each of its days under this reference, in order of (client, day)."""
    days, _ = _Run(encoder, decision_threshold).trace(reference, batches)
    largest = [process.name for process in PROCESSES].index("family_size")
    variants = days.evidence[:, largest].astype(np.int64) // 1000
    behaviour = _behaviour(days.evidence)
    return DailyMaxima(days.client, days.klass, days.day, days.statistic, variants, days.rows, days.novelty, behaviour)


def trace(
    encoder: Encoder, decision_threshold: float | None, reference: Reference, batches: Sequence[Rows]
) -> list[I32]:
    """The statistic after each row of each batch, thousandths of a tail length."""
    return [tally.statistic for tally in tallies(encoder, decision_threshold, reference, batches)]


def tallies(
    encoder: Encoder, decision_threshold: float | None, reference: Reference, batches: Sequence[Rows]
) -> list[Tally]:
    """Evidence of every process and the statistic, after each row of each batch."""
    return _Run(encoder, decision_threshold).tallies(reference, batches)


class _Run:
    """The fold over many batches with a fresh, unbounded table."""

    def __init__(self, encoder: Encoder, decision_threshold: float | None) -> None:
        self._encoder = encoder
        self._threshold = decision_threshold
        self._fields = len(encoder.field_names)

    def _fold(self, reference: Reference, batches: Sequence[Rows], tallies: Sequence[Tally]) -> ClientTable:
        encoder = self._encoder
        # A decision stops the fold, in the middle of a batch; counted is the statistic of every row.
        silent = replace(reference, thresholds=np.full_like(reference.thresholds, UNREACHABLE))
        nulls = evidence.nulls(silent, encoder.reach, encoder.agreement_min, self._threshold)
        table = ClientTable(encoder.dim, self._fields, FAMILY_PROCESSES, JOINT, 1, UNBOUNDED)
        verdict = np.zeros(VERDICT, np.int64)
        for rows, tally in zip(batches, tallies, strict=True):
            table.fold(nulls, table.batch(rows), np.zeros(1, np.int64), 0, tally, verdict)
        return table

    def changed_fields(self, reference: Reference, batches: Sequence[Rows]) -> I64:
        """(f,) how often each field changed inside families."""
        nothing = no_tally(self._fields, len(PROCESSES))
        table = self._fold(reference, batches, [nothing] * len(batches))
        changed: I64 = table.table.changed.sum(axis=0, dtype=np.int64)
        return changed

    def count(self, reference: Reference, batches: Sequence[Rows]) -> tuple[I64, I64]:
        """Feature levels of benign variants: (3, 8, 7, 13) and (3, f + 1)."""
        nothing = no_tally(self._fields, len(PROCESSES))
        tally = nothing._replace(
            family=np.zeros((CLASS_COUNT, BUCKETS, 7, LEVELS), np.int64),
            field=np.zeros((CLASS_COUNT, self._fields + 1), np.int64),
        )
        self._fold(reference, batches, [tally] * len(batches))
        return tally.family, tally.field

    def trace(self, reference: Reference, batches: Sequence[Rows]) -> tuple[_Days, I64]:
        """Maxima over client-days, and growth (3, 21) of the statistic with the rows of the day."""
        return _by_day(batches, self.tallies(reference, batches))

    def tallies(self, reference: Reference, batches: Sequence[Rows]) -> list[Tally]:
        """Evidence and statistic after each row."""
        nothing = no_tally(self._fields, len(PROCESSES))
        tallies = [
            nothing._replace(
                evidence=np.zeros((rows.count, len(PROCESSES)), np.int32), statistic=np.zeros(rows.count, np.int32)
            )
            for rows in batches
        ]
        self._fold(reference, batches, tallies)
        return tallies


def select(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    """Some rows of a batch, without their request ids."""
    ids = (np.zeros(int(chosen.sum()) + 1, np.int32), np.zeros(0, np.uint8))
    columns = {name: getattr(rows, name)[chosen] for name in Rows._fields if not name.startswith("id_")}
    return Rows(id_offsets=ids[0], id_bytes=ids[1], **columns)


def first_rows(batches: Sequence[Rows]) -> list[Rows]:
    """The first COLD_ROWS rows of each client."""
    if not batches:
        return []
    _, place = np.unique(np.concatenate([rows.client for rows in batches]), return_inverse=True)
    number = np.split(_running_count(place.reshape(-1)), np.cumsum([rows.count for rows in batches])[:-1])
    return [select(rows, numbers <= COLD_ROWS) for rows, numbers in zip(batches, number, strict=True)]


def _blank(fields: int, low_margin: F32) -> Reference:
    """Tables that bet on nothing and never alarm."""
    processes = len(PROCESSES)
    return Reference(
        processes=tuple(process.name for process in PROCESSES),
        family=np.zeros((CLASS_COUNT, BUCKETS, 7, LEVELS, FAMILY_PROCESSES), np.int32),
        field=np.zeros((CLASS_COUNT, fields + 1, FAMILY_PROCESSES), np.int32),
        rarity=np.zeros((CLASS_COUNT, fields), np.int32),
        margin=np.zeros((CLASS_COUNT, 2), np.int32),
        offgrid=np.zeros((CLASS_COUNT, 2), np.int32),
        tail=np.zeros((CLASS_COUNT, processes), np.int64),
        tail_scale=np.full((CLASS_COUNT, processes), 1000, np.int64),
        growth=np.zeros((CLASS_COUNT, 21), np.int64),
        thresholds=np.full((CLASS_COUNT, len(BUDGETS)), UNREACHABLE, np.int64),
        low_margin=low_margin,
        certified=np.zeros((CLASS_COUNT, len(BUDGETS)), np.bool_),
        promised=np.ones((CLASS_COUNT, len(BUDGETS))),
        certifying_clients=np.zeros(CLASS_COUNT, np.int64),
    )


def _low_margins(batches: Sequence[Rows]) -> F32:
    """Lowest decile of the margin per class; of all classes where one has few rows; 0 where no margin is known."""
    margins = np.concatenate([rows.margin for rows in batches] or [np.zeros(0, np.float32)])
    klass = np.concatenate([rows.klass for rows in batches] or [np.zeros(0, np.uint8)])
    known = ~np.isnan(margins)
    low = np.zeros(CLASS_COUNT, np.float32)
    for k in range(CLASS_COUNT):
        own = margins[known & (klass == k)]
        own = own if len(own) >= OWN_MARGINS_MIN else margins[known]
        if len(own):
            low[k] = np.quantile(own, LOW_MARGIN_SHARE, method="higher")
    return low


def _client_ratios(batches: Sequence[Rows], low_margin: F32) -> tuple[I32, I32]:
    """Bets on the client's own rows: low margins and values off their grid, (3, 2) each.

    A class with few rows leans on all of them.
    """
    counts = np.zeros((4, CLASS_COUNT), np.int64)  # low margins, margins, off-grid rows, rows
    for rows in batches:
        for k in range(CLASS_COUNT):
            own = rows.klass == k
            known = own & ~np.isnan(rows.margin)
            counts[0, k] += (rows.margin[known] < low_margin[k]).sum()
            counts[1, k] += known.sum()
            counts[2, k] += (rows.offgrid[own] != 0).sum()
            counts[3, k] += own.sum()
    few = counts[3] < OWN_MARGINS_MIN
    counts[:, few] = counts.sum(axis=1, keepdims=True)
    margin = evidence.bernoulli_ratios(counts[0], counts[1], evidence.LOW_MARGIN_ATTACK, 1e-3)
    offgrid = evidence.bernoulli_ratios(counts[2], counts[3], evidence.OFFGRID_ATTACK, evidence.OFFGRID_NULL_MIN)
    return margin, offgrid


def _by_day(batches: Sequence[Rows], tallies: Sequence[Tally]) -> tuple[_Days, I64]:
    if not sum(rows.count for rows in batches):
        nothing = np.zeros(0, np.int64)
        none = np.zeros((0, len(PROCESSES)), np.int32)
        empty = _Days(nothing, nothing.astype(np.uint64), nothing, none, nothing, nothing, nothing.astype(float))
        return empty, np.zeros((CLASS_COUNT, 21), np.int64)
    client = np.concatenate([rows.client for rows in batches])
    day = _own_days(client, np.concatenate([rows.time_ms for rows in batches]))
    klass = np.minimum(2, np.concatenate([rows.klass for rows in batches])).astype(np.int64)
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
    klass_of = np.zeros(count, np.int64)
    klass_of[place] = klass
    rows_of = np.bincount(place, minlength=count).astype(np.int64)
    known = ~np.isnan(novelty)
    sums, with_novelty = (np.bincount(place[known], w, count) for w in (novelty[known], None))
    mean = np.divide(sums, with_novelty, out=np.full(count, np.nan), where=with_novelty > 0)
    days = _Days(klass_of, keys[0], keys[1].astype(np.int64), most, largest, rows_of, mean)
    return days, _growth(place, klass, statistic)


def _own_days(client: U64, time_ms: I64) -> I64:
    """(n,) the day on each row's client's clock, which never goes back: as the fold counts it. Rows in order."""
    _, place = np.unique(client, return_inverse=True)
    order = np.argsort(place, kind="stable")
    day = time_ms[order] // DAY_MS
    base = place[order] * (int(np.ptp(day)) + 1)  # so that no client's days reach into the next one's
    own = np.empty(len(day), np.int64)
    own[order] = np.maximum.accumulate(day + base) - base
    return own


def _behaviour(most: I32) -> U64:
    """(k,) a hash of each row of (k, processes)."""
    mixed = np.zeros(len(most), np.uint64)
    for column in most.T:
        mixed = (mixed ^ column.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def _growth(place: I64, klass: I64, statistic: I64) -> I64:
    """99 % quantile of the statistic in doubling buckets of the day's row number, at least 0, never falling.

    Subtracted from the statistic, it keeps long days from alarming for their length. Buckets that few client-days
    reach keep the last known value. place : (n,) client-day of each row, rows in order.
    """
    number = _running_count(place)
    bucket = np.array([size_bucket(count) for count in range(int(number.max(initial=0)) + 1)], np.int64)[number]
    growth = np.zeros((CLASS_COUNT, 21), np.int64)
    for k in range(CLASS_COUNT):
        last = 0
        for b in range(21):
            chosen = (klass == k) & (bucket == b)
            if chosen.any():
                days, at = np.unique(place[chosen], return_inverse=True)
                most = np.full(len(days), np.iinfo(np.int64).min)
                np.maximum.at(most, at, statistic[chosen])
                if len(days) >= GROWTH_DAYS_MIN:
                    last = max(last, int(np.quantile(most, 0.99, method="higher")))
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


def _tails(days: _Days) -> tuple[I64, I64]:
    """99 % quantile (at least 0: evidence below that is none) and length of the benign tail, per class and process.

    Classes with few client-days take the larger of their own and everybody's. Sums over families are for consumers:
    a broker's many applicants would add up.
    """
    least = np.array([TAIL_SCALE_MIN.get(process.name, TAIL_SCALE_MIN_OTHERS) for process in PROCESSES])
    tail = np.zeros((CLASS_COUNT, len(PROCESSES)), np.int64)
    scale = np.zeros_like(tail)
    everybody = _tail(days.evidence, least)
    for k in range(CLASS_COUNT):
        own = days.evidence[days.klass == k]
        found = _tail(own, least)
        if len(own) < OWN_DAYS_MIN:
            found = (np.maximum(found[0], everybody[0]), np.maximum(found[1], everybody[1]))
        tail[k], scale[k] = found
        if k != CONSUMER:
            scale[k, FAMILY_PROCESSES : FAMILY_PROCESSES + JOINT] = 0
    return tail, scale


def _tail(evidence: I32, least: I64) -> tuple[I64, I64]:
    if not len(evidence):
        return np.zeros(len(least), np.int64), least.astype(np.int64)
    q99, q999 = np.maximum(0, np.quantile(evidence, (0.99, 0.999), axis=0, method="higher"))
    return q99.astype(np.int64), np.maximum(least, np.rint((q999 - q99) / np.log(10.0))).astype(np.int64)
