"""Fit the reference of one space on benign rows, with the fold itself: what is counted is what will be judged.

Half of the clients fit tables, tails and growth; the others, disjoint, give the thresholds. Records of one client never
stand on both sides, or the thresholds would promise too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector import evidence
from detector.evidence import FAMILY_PROCESSES, JOINT, PROCESSES
from models.certificate import BUDGETS, thresholds
from models.clients import ClientTable, no_tally
from models.encoders.base import Encoder
from models.kernels.client import DAY_MS
from models.kernels.layout import (
    BUCKETS,
    CLASS_COUNT,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    COUNTS,
    LEVELS,
    NOVELTY_EDGES,
    VERDICT,
    Tally,
)
from models.kernels.numbers import size_bucket
from models.reference import Reference
from models.rows import CLASSES, F32, F64, I32, I64, U64, Rows

UNREACHABLE = 1 << 40
UNBOUNDED = 1 << 60
LOW_MARGIN_SHARE = 0.1
OWN_MARGINS_MIN = 200
OWN_DAYS_MIN = 50
GROWTH_DAYS_MIN = 200
TAIL_SCALE_MIN = {"offgrid": 2000, "membership": 2000, "explain": 2000, "timing": 1000} | dict.fromkeys(COUNTS, 1000)
"""Milli-nats; of counts, thousandths. Long where one odd row says much."""
TAIL_SCALE_MIN_OTHERS = 300
OUTCOMES_MIN = 200
"""A bet of clients whose outcomes history hardly had (no margins logged, no times) is off: it would judge the log."""
NOVELTY_SHARES = 1.0 - 2.0 ** -np.arange(1, NOVELTY_EDGES + 1)
"""Quantiles at which the levels of novelty begin."""
EXPONENT_SHARE = 0.001
EXPONENT_PRIOR_ROWS = 2.0
SUSPICIOUS_SHARE = 0.001
"""Fitting clients with the largest statistics teach nothing: an attacker in the history should not be the baseline."""
ROWS_TAUGHT_MAX = 300
"""Rows by which one client can teach what is ordinary."""
CONSUMER = 0
COLD_ROWS = 10
COLD_THRESHOLDS = (UNREACHABLE, 2_000, 8_000, 12_000, 16_000)
"""Without trusted history: each client teaches by its first rows only, and no threshold lies above these (thousandths
of a tail length). Round numbers above what calibrations on simulated clients gave; they promise nothing."""


@dataclass(frozen=True, slots=True)
class ClassReport:
    """What one class of one space was fitted on, and the thresholds it got (thousandths of a tail length, by level).

    attainable : whether m certifying clients can show a budget at all; the others are extrapolated.
    """

    client_class: str
    fitting_clients: int
    certifying_clients: int
    thresholds: tuple[int, ...]
    attainable: tuple[bool, ...]


class _Days(NamedTuple):
    """Maxima over client-days. klass : (k,); client : (k,); day : (k,); evidence : (k, processes); statistic : (k,)."""

    klass: I64
    client: U64
    day: I64
    evidence: I32
    statistic: I64


def is_fitting(clients: U64) -> NDArray[np.bool_]:
    """Which clients fit and which certify, by a bit of their keyed hash."""
    chosen: NDArray[np.bool_] = ((clients >> np.uint64(41)) & np.uint64(1)) == 0
    return chosen


def fit_reference(
    encoder: Encoder, decision_threshold: float | None, batches: Sequence[Rows], *, cold: bool = False
) -> tuple[Reference, tuple[ClassReport, ...]]:
    """Reference of one space. batches : rows of one source each, sources in the order they are to be read.

    cold : the history is not known to be benign, so no client may teach much.
    """
    batches = first_rows(batches, COLD_ROWS) if cold else batches
    fitting = [_select(rows, is_fitting(rows.client)) for rows in batches]
    certifying = [_select(rows, ~is_fitting(rows.client)) for rows in batches]
    run = _Run(encoder, decision_threshold)
    reference, days = _fit_tables(run, fitting, cold)
    trusted = [_select(rows, ~np.isin(rows.client, _suspicious(days))) for rows in fitting]
    reference, _ = _fit_tables(run, trusted, cold)
    _, growth = run.trace(reference, trusted)
    reference = replace(reference, growth=growth)
    judged, _ = run.trace(reference, certifying)
    reference, attainable = _certify(reference, judged)
    if cold:
        reference = replace(reference, thresholds=np.minimum(reference.thresholds, np.array(COLD_THRESHOLDS)))
        attainable = [[False] * len(BUDGETS)] * CLASS_COUNT
    return reference, _report(reference, attainable, fitting)


def _fit_tables(run: "_Run", batches: Sequence[Rows], cold: bool) -> tuple[Reference, _Days]:
    """Everything but growth and thresholds, and the client-days under it."""
    taught = first_rows(batches, ROWS_TAUGHT_MAX)
    reference = _blank(run.fields, _low_margins(taught), _novelty_edges(taught))
    changed = run.changed_fields(reference, taught)
    reference = replace(reference, rarity=evidence.rarities(np.tile(changed, (CLASS_COUNT, 1))))
    tally = run.count(reference, taught)
    reference = replace(
        reference,
        family=evidence.family_ratios(tally.family),
        field=evidence.field_ratios(tally.field),
        client=evidence.client_ratios(tally.client, _exponents(taught, reference.novelty)),
    )
    days, _ = run.trace(reference, batches)
    tail, tail_scale = _tails(days)
    off = _without_outcomes(tally.client, days)
    if cold:  # what a client does in a day cannot be learned from its first few rows
        off |= {*COUNTS, "timing"}
    tail_scale[:, [process.name in off for process in PROCESSES]] = 0
    reference = replace(reference, tail=tail, tail_scale=tail_scale)
    return reference, run.weighed(reference, days)


class _Run:
    """The fold over many batches with a fresh, unbounded table."""

    def __init__(self, encoder: Encoder, decision_threshold: float | None) -> None:
        self._encoder = encoder
        self._threshold = decision_threshold
        self.fields = len(encoder.field_names)

    def _fold(self, reference: Reference, batches: Sequence[Rows], tallies: Sequence[Tally]) -> ClientTable:
        encoder = self._encoder
        nulls = evidence.nulls(reference, encoder.reach, encoder.agreement_min, self._threshold)
        table = ClientTable(encoder.dim, self.fields, FAMILY_PROCESSES, JOINT, 1, UNBOUNDED)
        verdict = np.zeros(VERDICT, np.int64)
        for rows, tally in zip(batches, tallies, strict=True):
            table.fold(nulls, table.batch(rows), np.zeros(1, np.int64), 0, tally, verdict)
        return table

    def changed_fields(self, reference: Reference, batches: Sequence[Rows]) -> I64:
        """(f,) how often each field changed inside families."""
        nothing = no_tally(self.fields, len(PROCESSES))
        table = self._fold(reference, batches, [nothing] * len(batches))
        changed: I64 = table.table.changed.sum(axis=0, dtype=np.int64)
        return changed

    def count(self, reference: Reference, batches: Sequence[Rows]) -> Tally:
        """Feature levels of benign variants, and outcomes of benign rows."""
        nothing = no_tally(self.fields, len(PROCESSES))
        tally = nothing._replace(
            family=np.zeros((CLASS_COUNT, BUCKETS, 7, LEVELS), np.int64),
            field=np.zeros((CLASS_COUNT, self.fields + 1), np.int64),
            client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int64),
        )
        self._fold(reference, batches, [tally] * len(batches))
        return tally

    def weighed(self, reference: Reference, days: _Days) -> _Days:
        """The days with their statistic under newly fitted tails (of the day's maxima, before growth)."""
        scale = np.where(reference.tail_scale > 0, reference.tail_scale, UNBOUNDED)[days.klass]
        excess = (days.evidence.astype(np.int64) - reference.tail[days.klass]) * 1000 // scale
        return days._replace(statistic=excess.max(axis=1, initial=0)) if len(excess) else days

    def trace(self, reference: Reference, batches: Sequence[Rows]) -> tuple[_Days, I64]:
        """Maxima over client-days, and growth (3, 21) of the statistic with the rows of the day."""
        nothing = no_tally(self.fields, len(PROCESSES))
        tallies = [
            nothing._replace(
                evidence=np.zeros((rows.count, len(PROCESSES)), np.int32), statistic=np.zeros(rows.count, np.int32)
            )
            for rows in batches
        ]
        self._fold(reference, batches, tallies)
        return _by_day(batches, tallies)


def _select(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    """Some rows of a batch, without their request ids."""
    ids = (np.zeros(int(chosen.sum()) + 1, np.int32), np.zeros(0, np.uint8))
    columns = {name: getattr(rows, name)[chosen] for name in Rows._fields if not name.startswith("id_")}
    return Rows(id_offsets=ids[0], id_bytes=ids[1], **columns)


def first_rows(batches: Sequence[Rows], most: int) -> list[Rows]:
    """The first rows of each client."""
    if not batches:
        return []
    _, place = np.unique(np.concatenate([rows.client for rows in batches]), return_inverse=True)
    number = np.split(_running_count(place.reshape(-1)), np.cumsum([rows.count for rows in batches])[:-1])
    return [_select(rows, numbers <= most) for rows, numbers in zip(batches, number, strict=True)]


def _blank(fields: int, low_margin: F32, novelty: F32) -> Reference:
    """Tables that bet on nothing and never alarm."""
    processes = len(PROCESSES)
    return Reference(
        processes=tuple(process.name for process in PROCESSES),
        family=np.zeros((CLASS_COUNT, BUCKETS, 7, LEVELS, FAMILY_PROCESSES), np.int32),
        field=np.zeros((CLASS_COUNT, fields + 1, FAMILY_PROCESSES), np.int32),
        rarity=np.zeros((CLASS_COUNT, fields), np.int32),
        client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int32),
        novelty=novelty,
        tail=np.zeros((CLASS_COUNT, processes), np.int64),
        tail_scale=np.full((CLASS_COUNT, processes), 1000, np.int64),
        growth=np.zeros((CLASS_COUNT, 21), np.int64),
        thresholds=np.full((CLASS_COUNT, len(BUDGETS)), UNREACHABLE, np.int64),
        low_margin=low_margin,
        certified=np.zeros((CLASS_COUNT, len(BUDGETS)), np.bool_),
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


def _novelty_edges(batches: Sequence[Rows]) -> F32:
    """(3, 15) edges of the levels of novelty: the 1/2, 3/4, 7/8 … quantiles of a class's rows; out of reach without."""
    novelty = np.concatenate([rows.novelty for rows in batches] or [np.zeros(0, np.float32)])
    klass = np.concatenate([rows.klass for rows in batches] or [np.zeros(0, np.uint8)])
    known = ~np.isnan(novelty)
    edges = np.full((CLASS_COUNT, NOVELTY_EDGES), np.inf, np.float32)
    for k in range(CLASS_COUNT):
        own = novelty[known & (klass == k)]
        own = own if len(own) >= OWN_MARGINS_MIN else novelty[known]
        if len(own):
            edges[k] = np.quantile(own, NOVELTY_SHARES, method="higher")
    return edges


def _exponents(batches: Sequence[Rows], edges: F32) -> F64:
    """(3,) for each class the lowest .1 % of clients' exponents a, where a client's p-values of novelty follow p ** a.

    A client whose rows are all odd, as some ordinary ones are, has a small exponent: rows / sum of -log p (maximum
    likelihood), drawn to 1 as if by two ordinary rows. 1 where no novelty is known.
    """
    client = np.concatenate([rows.client for rows in batches])
    klass = np.minimum(2, np.concatenate([rows.klass for rows in batches])).astype(np.int64)
    novelty = np.concatenate([rows.novelty for rows in batches])
    known = ~np.isnan(novelty)
    client, klass, novelty = client[known], klass[known], novelty[known]
    exponents = np.ones(CLASS_COUNT)
    everybody: list[F64] = []
    for k in range(CLASS_COUNT):
        level = np.searchsorted(edges[k], novelty[klass == k], side="right")
        _, owner = np.unique(client[klass == k], return_inverse=True)
        surprise = np.bincount(owner.reshape(-1), (level + 0.5) * np.log(2.0))
        rows = np.bincount(owner.reshape(-1))
        everybody.append((rows + EXPONENT_PRIOR_ROWS) / (surprise + EXPONENT_PRIOR_ROWS))
    for k, found in enumerate(everybody):
        own = found if len(found) >= OWN_DAYS_MIN else np.concatenate(everybody)
        if len(own):
            exponents[k] = min(1.0, float(np.quantile(own, EXPONENT_SHARE, method="lower")))
    return exponents


def _without_outcomes(counts: I64, days: _Days) -> set[str]:
    """Processes that history cannot speak of. counts : (3, 8, 8, 16)."""
    off = {name for p, name in enumerate(CLIENT_PROCESSES) if counts[:, p].sum() < OUTCOMES_MIN}
    names = [process.name for process in PROCESSES]
    if not len(days.evidence) or days.evidence[:, names.index("tokens")].max() == 0:
        off.add("tokens")
    return off


def _suspicious(days: _Days) -> U64:
    """Fitting clients of each class with the largest statistics, one in a thousand."""
    found = []
    for k in range(CLASS_COUNT):
        own = days.klass == k
        clients, place = np.unique(days.client[own], return_inverse=True)
        most = np.full(len(clients), np.iinfo(np.int64).min)
        np.maximum.at(most, place.reshape(-1), days.statistic[own])
        count = int(SUSPICIOUS_SHARE * len(clients))
        found.append(clients[np.argsort(-most, kind="stable")[:count]])
    suspicious: U64 = np.concatenate(found).astype(np.uint64)
    return suspicious


def _by_day(batches: Sequence[Rows], tallies: Sequence[Tally]) -> tuple[_Days, I64]:
    client = np.concatenate([rows.client for rows in batches])
    day = np.concatenate([rows.time_ms for rows in batches]) // DAY_MS
    klass = np.minimum(2, np.concatenate([rows.klass for rows in batches])).astype(np.int64)
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
    days = _Days(klass_of, keys[0], keys[1].astype(np.int64), most, largest)
    return days, _growth(place, klass, statistic)


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


def _certify(reference: Reference, judged: _Days) -> tuple[Reference, list[list[bool]]]:
    """Thresholds per class from each certifying client's last day, the one with most state carried in.

    A class with fewer clients than the loosest budget needs is held to the consumers' thresholds at least.
    """
    found = np.zeros((CLASS_COUNT, len(BUDGETS)), np.int64)
    clients = np.zeros(CLASS_COUNT, np.int64)
    attainable = []
    for k in range(CLASS_COUNT):
        own = judged.klass == k
        maxima = _last_day(judged.client[own], judged.day[own], judged.statistic[own])
        clients[k] = len(maxima)
        found[k], can = thresholds(maxima)
        if not can[1]:
            found[k] = np.maximum(found[k], found[CONSUMER])
        attainable.append(can)
    found[:, 0] = UNREACHABLE
    return replace(reference, thresholds=found, certifying_clients=clients), attainable


def _report(
    reference: Reference, attainable: Sequence[Sequence[bool]], fitting: Sequence[Rows]
) -> tuple[ClassReport, ...]:
    return tuple(
        ClassReport(
            name,
            _clients(fitting, k),
            int(reference.certifying_clients[k]),
            tuple(reference.thresholds[k].tolist()),
            tuple(attainable[k]),
        )
        for k, name in enumerate(CLASSES)
    )


def _last_day(client: U64, day: I64, statistic: I64) -> I64:
    order = np.lexsort((day, client))
    last = np.r_[np.flatnonzero(np.diff(client[order])), len(order) - 1] if len(order) else order
    return statistic[order][last]


def _clients(batches: Sequence[Rows], klass: int) -> int:
    own = [rows.client[rows.klass == klass] for rows in batches]
    return len(np.unique(np.concatenate(own))) if own else 0
