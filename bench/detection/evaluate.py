"""What every figure of the benchmark means. Each method is judged by these functions alone, ours too.

A method says after each row how suspicious it is. A client-day is a client's last day in the log, judged with whatever
state the days before left behind; its maximum is the largest suspicion of that day. A limit is an order statistic of
the maxima of certifying clients; an alarm is a suspicion above the limit. A delay counts the attacker's own requests
(never the dummies) up to and including the one at which the first alarm stood.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta as beta_law
from scipy.stats import betabinom

from bench.detection.log import Log
from models.rows import CLASSES, F64, I64, U8

BUDGETS = (1e-2, 1e-3, 1e-4)
"""False alarms per benign client-day."""
CONFIDENCE = 0.95
CONSUMER = 0
EVERYBODY = len(CLASSES)
"""Row of Limits for one threshold that all clients share."""
NEVER = np.iinfo(np.int64).max
"""Delay of an attacker who was not found."""


class Limits(NamedTuple):
    """Suspicion above which a client is alarmed: (4, 3), by class and for everybody, by budget.

    rank : (4, 3) the order statistic that it is; 0 where the clients of the class are too few for the budget, and the
    largest of their maxima stands in (for less than 100 of them, nothing below the consumers' limit).
    clients : (4,) whose maxima they were.
    """

    above: F64
    rank: I64
    clients: I64


class Rate(NamedTuple):
    """Alarmed client-days. low, high : Clopper and Pearson, 95 %. p : chance of as many or more if the limit keeps its
    budget (one-sided, beta-binomial given certifying and judged clients); NaN without a promise."""

    alarmed: int
    client_days: int
    low: float
    high: float
    p: float

    @property
    def share(self) -> float:
        return self.alarmed / self.client_days if self.client_days else math.nan


class Detection(NamedTuple):
    """Of `attackers`, `found` were alarmed at all. median, p95 : of the delay over all attackers, inf if it was never.

    low, high : Clopper and Pearson, 95 %. won : attackers who reached their goal before the alarm; reached : at all.
    """

    attackers: int
    found: int
    low: float
    high: float
    median: float
    p95: float
    won: int
    reached: int


def daily_maxima(log: Log, score: F64) -> F64:
    """(c,) the largest suspicion of each client's last day."""
    last = log.day == log.day[log.starts[1:] - 1][log.client]
    maxima: F64 = np.maximum.reduceat(np.where(last, score, -np.inf), log.starts[:-1])
    return maxima


def limit(maxima: F64, budget: float) -> tuple[float, int]:
    """The ceil((m + 1)(1 - budget))-th smallest of m maxima, and that rank: a client exchangeable with them lies above
    it with probability at most `budget` (Vovk, Gammerman, Shafer 2005). Rank 0 and the largest if m is too small."""
    m = len(maxima)
    rank = math.ceil((m + 1) * (1.0 - budget))
    if rank > m:
        return (float(maxima.max()) if m else -math.inf), 0
    return float(np.partition(maxima, rank - 1)[rank - 1]), rank


def limits(maxima: F64, client_class: U8) -> Limits:
    """Limits of one method. maxima, client_class : (m,) of certifying clients."""
    above = np.zeros((EVERYBODY + 1, len(BUDGETS)))
    rank = np.zeros(above.shape, np.int64)
    own = [maxima[client_class == k] for k in range(EVERYBODY)] + [maxima]
    for k, budget in np.ndindex(above.shape):
        above[k, budget], rank[k, budget] = limit(own[k], BUDGETS[budget])
    for k in range(EVERYBODY):
        if k != CONSUMER and not rank[k, 0]:  # too few even for 1e-2
            above[k] = np.maximum(above[k], above[CONSUMER])
    return Limits(above, rank, np.array([len(maxima) for maxima in own]))


def rate(alarmed: NDArray[np.bool_], rank: int, clients: int) -> Rate:
    """alarmed : (n,) judged client-days. rank, clients : of the limit; rank 0 promises nothing.

    Given the limit, its true rate is a draw from Beta(m + 1 - rank, rank), so the count is beta-binomial.
    """
    found, n = int(alarmed.sum()), len(alarmed)
    p = float(betabinom.sf(found - 1, n, clients + 1 - rank, rank)) if rank and n else math.nan
    return Rate(found, n, *interval(found, n), p)


def interval(found: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson (1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = float(beta_law.ppf(tail, found, n - found + 1)) if found else 0.0
    high = float(beta_law.ppf(1 - tail, found + 1, n - found)) if found < n else 1.0
    return low, high


def holm(p: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of these tests reject, none wrongly with probability 1 - level over all of them (Holm 1979). NaN: never."""
    rejected = [False] * len(p)
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    for left, (value, place) in zip(range(len(known), 0, -1), known, strict=True):
        if value > level / left:
            break
        rejected[place] = True
    return rejected


def false_alarms(log: Log, maxima: F64, found: Limits) -> Iterator[tuple[str, str, float, Rate]]:
    """(thresholds, scope, budget, rate) over judged benign clients: by class, everybody, and by kind of client."""
    for b, budget in enumerate(BUDGETS):
        for thresholds, above in (("class", found.above[log.client_class, b]), ("one", found.above[EVERYBODY, b])):
            alarmed = maxima > above
            for k, name in enumerate(CLASSES):
                promised = found.rank[k, b] if thresholds == "class" else 0
                if (log.client_class == k).any():
                    yield (
                        thresholds,
                        name,
                        budget,
                        rate(alarmed[log.client_class == k], promised, int(found.clients[k])),
                    )
            promised = found.rank[EVERYBODY, b] if thresholds == "one" else 0
            yield thresholds, "everybody", budget, rate(alarmed, promised, int(found.clients[EVERYBODY]))
            for kind, name in enumerate(log.kinds):
                if (log.kind == kind).any():
                    yield thresholds, f"kind: {name}", budget, rate(alarmed[log.kind == kind], 0, 0)


def delays(log: Log, alarmed: NDArray[np.bool_], accounts: int) -> I64:
    """(streams,) own requests of each attacker up to the first alarm, NEVER without one.

    alarmed : (n,) after each row. An attacker owns `accounts` neighbouring clients; their requests count together, in
    order of time.
    """
    stream = log.client // accounts
    order = np.lexsort((log.time_ms, stream))
    starts = np.searchsorted(stream[order], np.arange(log.clients // accounts))
    sent = np.cumsum(log.probe[order])
    before: I64 = sent[starts] - log.probe[order][starts]
    found = np.full(len(starts), NEVER)
    rows = np.flatnonzero(alarmed[order])
    owner, first = np.unique(stream[order][rows], return_index=True)
    found[owner] = sent[rows[first]] - before[owner]
    return found


def detection(found: I64, success_at: I64) -> Detection:
    """found : (streams,) delays. success_at : the own request, counted from 1, that reached the goal; 0 if none did."""
    n, caught = len(found), found != NEVER
    delay = np.sort(np.where(caught, found, math.inf))
    won = (success_at > 0) & (success_at < found)
    return Detection(
        n, int(caught.sum()), *interval(int(caught.sum()), n), _quantile(delay, 0.5), _quantile(delay, 0.95),
        int(won.sum()), int((success_at > 0).sum()),
    )  # fmt: skip


def _quantile(ordered: F64, q: float) -> float:
    """The smallest value that at least a share q does not exceed."""
    return float(ordered[max(0, math.ceil(q * len(ordered)) - 1)])
