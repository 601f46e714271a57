"""Fit the reference of one space on benign rows, with the fold itself: what is counted is what will be judged.

Three in eight clients fit tables, tails and growth; all others give the thresholds (certify.py). No client is on both
sides, or the thresholds would promise too much.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detector import evidence
from detector.calibrate import baseline
from detector.calibrate.client_days import DailyMaxima, Days, behaviour, by_day, first_rows, select
from detector.calibrate.weighting import by_halvings, weighed
from detector.evidence import FAMILY_PROCESSES, JOINT, PROCESSES
from detector.schema_drift.shares import reference_shares
from models.artefacts.certificate import BUDGETS, rank_of
from models.artefacts.reference import Reference
from models.client_shares import WEIGHT, limited_weights, quantiles
from models.client_table import ClientTable, no_tally
from models.encoders.base import Encoder
from models.kernels.layout import (
    BUCKETS,
    CLASS_COUNT,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    COUNTS,
    LEVELLED,
    LEVELS,
    SIZE_BUCKETS,
    VERDICT,
    Tally,
)
from models.rows import F32, I32, I64, U64, Rows

UNREACHABLE = 1 << 40
UNBOUNDED = 1 << 60
DRIFT_BUDGET = 1e-3
"""Records of drift per client-day, of clients that have averages to compare."""
DRIFT_DAYS_MIN = 50
ROWS_PER_CLIENT_MAX = 300
"""Rows that one client contributes to the tables, at most."""
COLD_ROWS = 10
"""Without trusted history only the first rows of each client are used."""


def is_fitting(clients: U64) -> NDArray[np.bool_]:
    """(n,) True for clients that fit, False for those that certify, by three bits of their keyed hash: 3 of 8 fit.

    Certifying needs more clients: a budget of 1e-4 takes 9,999; for tables a few hundred suffice.
    """
    chosen: NDArray[np.bool_] = ((clients >> np.uint64(41)) & np.uint64(7)) < 3
    return chosen


def fit_reference(
    encoder: Encoder,
    decision_threshold: float | None,
    batches: Sequence[Rows],
    *,
    cold: bool = False,
    within: tuple[float, float] = baseline.TAIL,
    prune: Callable[[Reference], Reference] | None = None,
) -> Reference:
    """Reference of one space, without thresholds: it never alarms until it is certified.

    batches : rows of one source each, in the order in which they are read; only fitting clients' rows are used.
    cold : the history may hold attackers, so each client contributes its first rows only.
    within : quantiles between which benign tails are measured.
    prune : removes bets from the tables before tails are measured; the benchmark leaves features out with it.
    """
    batches = first_rows(batches, COLD_ROWS) if cold else batches
    fitting = [select(rows, is_fitting(rows.client)) for rows in batches]
    run = _Run(encoder, decision_threshold)
    few = first_rows(fitting, ROWS_PER_CLIENT_MAX)
    reference, counts = _bets(run, few)
    reference = replace(reference, odd_shares=reference_shares(few, encoder.categories))
    reference = prune(reference) if prune is not None else reference
    days, _ = run.trace(reference, fitting)
    tail, tail_scale = baseline.tails(days, within)
    off = baseline.without_outcomes(counts, days)
    if cold:  # what a client does in a day cannot be learned from its first few rows
        off |= {*COUNTS, "timing"}
    tail_scale[:, [process.name in off for process in PROCESSES]] = 0
    reference = replace(reference, tail=tail, tail_scale=tail_scale)
    bets = replace(reference, tail_scale=np.where(baseline.is_count(), 0, tail_scale))
    days, growth = run.trace(bets, fitting)
    return replace(reference, growth=growth, drift=_drift_limits(days))


def daily_maxima(
    encoder: Encoder, decision_threshold: float | None, reference: Reference, batches: Sequence[Rows]
) -> DailyMaxima:
    """Maxima of all client-days of `batches` under this reference, in order of (client, day)."""
    days, _ = _Run(encoder, decision_threshold).trace(reference, batches)
    largest = [process.name for process in PROCESSES].index("family_size")
    variants = days.evidence[:, largest].astype(np.int64) // 1000
    alike = behaviour(days.evidence)
    maxima = (
        days.client,
        days.client_class,
        days.day,
        days.statistic,
        variants,
        days.rows,
        days.novelty,
        alike,
        days.drift,
    )
    return DailyMaxima(*maxima)


def with_drift_limits(reference: Reference, days: DailyMaxima) -> Reference:
    """The reference with drift limits from certifying clients, in classes that have enough of them.

    days : of one space's certifying clients, in order of (client, day). Each client counts with the last of its days on
    which its averages were compared: days of one client are not independent (split conformal,
    models/artefacts/certificate.py).
    """
    followed = DailyMaxima._make(column[days.drift >= 0] for column in days)
    last = np.r_[followed.client[1:] != followed.client[:-1], np.ones(min(1, len(followed.client)), np.bool_)]
    limits, certified = reference.drift.copy(), reference.drift_certified.copy()
    for k in range(CLASS_COUNT):
        own = np.sort(followed.drift[last & (followed.client_class == k)])
        rank = rank_of(DRIFT_BUDGET, len(own))
        if rank <= len(own):
            limits[k], certified[k] = own[rank - 1] + 1, True
    return replace(reference, drift=limits, drift_certified=certified)


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


def _bets(run: "_Run", batches: Sequence[Rows]) -> tuple[Reference, I64]:
    """A reference with bets and without tails, and (3, 8, 8, 16) counts of client outcomes."""
    reference = _blank(run.fields, baseline.low_margins(batches), baseline.novelty_edges(batches))
    parts = by_halvings(batches)
    changed = weighed([(halvings, run.changed_fields(reference, part)) for halvings, part in parts])
    reference = replace(reference, rarity=evidence.rarities(np.tile(changed, (CLASS_COUNT, 1))))
    tally = _counted(run, reference, parts)
    exponents = baseline.exponents(batches, reference.novelty)
    reference = replace(
        reference,
        family=evidence.family_ratios(tally.family),
        field=evidence.field_ratios(tally.field),
        client=evidence.client_ratios(tally.client, exponents),
    )
    return reference, tally.client


def _counted(run: "_Run", reference: Reference, parts: Sequence[tuple[int, list[Rows]]]) -> Tally:
    tallies = [(halvings, run.count(reference, part)) for halvings, part in parts] or [(0, run.count(reference, []))]
    return tallies[0][1]._replace(
        family=weighed([(halvings, one.family) for halvings, one in tallies]),
        field=weighed([(halvings, one.field) for halvings, one in tallies]),
        client=weighed([(halvings, one.client) for halvings, one in tallies]),
    )


def _drift_limits(days: Days) -> I64:
    """(3,) the 99.9 % quantile over clients' days; with few, beyond the largest by an exponential tail.

    It promises nothing; a class with fewer than DRIFT_DAYS_MIN has no limit.
    """
    limits = np.full(CLASS_COUNT, UNBOUNDED)
    for k in range(CLASS_COUNT):
        own = (days.client_class == k) & (days.drift >= 0)
        weights = limited_weights(days.client[own])
        count = int(weights.sum()) / WEIGHT
        if count >= DRIFT_DAYS_MIN:
            middle, top = quantiles(days.drift[own], weights, (0.5, 1.0 - DRIFT_BUDGET)).tolist()
            beyond = max(0.0, -math.log(DRIFT_BUDGET * (count + 1))) / math.log((count + 1) / 2)
            limits[k] = top + 1 + round((top - middle) * beyond)
    return limits


class _Run:
    """The fold over many batches with a fresh, unbounded table."""

    def __init__(self, encoder: Encoder, decision_threshold: float | None) -> None:
        self._encoder = encoder
        self._threshold = decision_threshold
        self.fields = len(encoder.field_names)

    def _fold(self, reference: Reference, batches: Sequence[Rows], tallies: Sequence[Tally]) -> ClientTable:
        encoder = self._encoder
        # A decision would stop the fold in the middle of a batch; the statistic of every row is needed.
        never = np.full_like(reference.thresholds, UNREACHABLE), np.full_like(reference.drift, UNBOUNDED)
        silent = replace(reference, thresholds=never[0], drift=never[1])
        nulls = evidence.nulls(silent, encoder.reach, encoder.agreement_min, self._threshold)
        table = ClientTable(encoder.dim, self.fields, FAMILY_PROCESSES, JOINT, 1, UNBOUNDED)
        verdict = np.zeros(VERDICT, np.int64)
        for rows, tally in zip(batches, tallies, strict=True):
            table.fold(nulls, table.batch(rows), np.zeros(1, np.int64), 0, tally, verdict)
        return table

    def changed_fields(self, reference: Reference, batches: Sequence[Rows]) -> I64:
        """(f,) how often each field changed within families."""
        nothing = no_tally(self.fields, len(PROCESSES))
        table = self._fold(reference, batches, [nothing] * len(batches))
        changed: I64 = table.table.changed.sum(axis=0, dtype=np.int64)
        return changed

    def count(self, reference: Reference, batches: Sequence[Rows]) -> Tally:
        """Feature levels of benign variants, and outcomes of benign rows."""
        nothing = no_tally(self.fields, len(PROCESSES))
        tally = nothing._replace(
            family=np.zeros((CLASS_COUNT, BUCKETS, LEVELLED, LEVELS), np.int64),
            field=np.zeros((CLASS_COUNT, self.fields + 1), np.int64),
            client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int64),
        )
        self._fold(reference, batches, [tally] * len(batches))
        return tally

    def trace(self, reference: Reference, batches: Sequence[Rows]) -> tuple[Days, I64]:
        """Maxima over client-days, and growth (3, SIZE_BUCKETS) of the statistic with the rows of the day."""
        return by_day(batches, self.tallies(reference, batches))

    def tallies(self, reference: Reference, batches: Sequence[Rows]) -> list[Tally]:
        """Evidence and statistic after each row."""
        nothing = no_tally(self.fields, len(PROCESSES))
        tallies = [
            nothing._replace(
                evidence=np.zeros((rows.count, len(PROCESSES)), np.int32),
                statistic=np.zeros(rows.count, np.int32),
                drift=np.full(rows.count, -1),
            )
            for rows in batches
        ]
        self._fold(reference, batches, tallies)
        return tallies


def _blank(fields: int, low_margin: F32, novelty: F32) -> Reference:
    """Tables that bet on nothing and never alarm."""
    processes = len(PROCESSES)
    return Reference(
        processes=tuple(process.name for process in PROCESSES),
        family=np.zeros((CLASS_COUNT, BUCKETS, LEVELLED, LEVELS, FAMILY_PROCESSES), np.int32),
        field=np.zeros((CLASS_COUNT, fields + 1, FAMILY_PROCESSES), np.int32),
        rarity=np.zeros((CLASS_COUNT, fields), np.int32),
        client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int32),
        novelty=novelty,
        tail=np.zeros((CLASS_COUNT, processes), np.int64),
        tail_scale=np.full((CLASS_COUNT, processes), 1000, np.int64),
        growth=np.zeros((CLASS_COUNT, SIZE_BUCKETS), np.int64),
        thresholds=np.full((CLASS_COUNT, len(BUDGETS)), UNREACHABLE, np.int64),
        drift=np.full(CLASS_COUNT, UNBOUNDED),
        drift_certified=np.zeros(CLASS_COUNT, np.bool_),
        low_margin=low_margin,
        certified=np.zeros((CLASS_COUNT, len(BUDGETS)), np.bool_),
        promised=np.ones((CLASS_COUNT, len(BUDGETS))),
        certifying_clients=np.zeros(CLASS_COUNT, np.int64),
        odd_shares=reference_shares([], frozenset()),
    )
