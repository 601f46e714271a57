"""Thresholds from benign clients that fitted nothing else, and what they promise: client-level split conformal.

The ceil((m + 1)(1 - beta))-th smallest of m exchangeable clients' daily maxima is exceeded by a new client with
probability at most beta (Vovk, Gammerman, Shafer 2005, ch. 2; Papadopoulos et al. 2002), averaged over calibrations.
For one calibration the rate is a draw from Beta(m + 1 - rank, rank) (Vovk 2012, "Conditional validity of inductive
conformal predictors"), if no maxima are equal; equal ones make it smaller.
"""

import math
from typing import NamedTuple

import numpy as np

from models.rows import F64, I64

BUDGETS = (1.0, 1e-2, 1e-3, 1e-4, 1e-5)
"""False alarms per benign client-day, by level; level 0 is no decision."""
SLOPE_MIN_MILLI = 1_500
"""Least slope beyond the last order statistic, thousandths of a tail length per factor e, where it can be measured."""
SLOPE_UNKNOWN_MILLI = 3_333
"""And where it cannot. For the shortest tail, .3 nats, this is one nat per factor e, what the likelihood ratio by
itself would promise; for longer tails it leans to the quiet side."""
SLOPE_CLIENTS_MIN = 999
"""q99.9 needs this many."""


class Rungs(NamedTuple):
    """By level (5,). thresholds : thousandths of a tail length. certified : whether the level's own budget is promised.

    ranks : the order statistic that the threshold lies above, 0 for none; promised : its budget, 1 for none.
    """

    thresholds: I64
    certified: tuple[bool, ...]
    ranks: tuple[int, ...]
    promised: tuple[float, ...]


def rank_of(budget: float, clients: int) -> int:
    """Which order statistic keeps the budget; more than `clients` if none does."""
    return math.ceil((clients + 1) * (1.0 - budget))


def thresholds(maxima: I64) -> Rungs:
    """maxima : (m,) each certifying client's largest statistic over one day.

    A budget below 1/(m + 1) has no order statistic. Its threshold lies above the largest maximum, by the exponential
    tail that the maxima themselves show: it is not certified, and promises 1/(m + 1). m = 0 gives nothing but zeros.
    """
    m = len(maxima)
    ordered = np.sort(maxima)
    found = np.zeros(len(BUDGETS), np.int64)
    certified, ranks, promised = [False], [0], [1.0]
    for level, budget in enumerate(BUDGETS[1:], 1):
        rank = rank_of(budget, m)
        certified.append(0 < rank <= m)
        ranks.append(min(rank, m))
        promised.append(budget if certified[level] else 1.0 / (m + 1))
        if m:
            found[level] = ordered[ranks[level] - 1] + 1
        if m and not certified[level]:
            found[level] += round(tail_slope(ordered) * math.log(1.0 / (budget * (m + 1))))
    return Rungs(found, tuple(certified), tuple(ranks), tuple(promised))


def tail_slope(ordered: I64) -> float:
    """Thousandths of a tail length per factor e in the upper tail. ordered : (m,) maxima, rising."""
    if len(ordered) < SLOPE_CLIENTS_MIN:
        return SLOPE_UNKNOWN_MILLI
    q99, q999 = (int(ordered[rank_of(budget, len(ordered)) - 1]) for budget in (1e-2, 1e-3))
    return max(SLOPE_MIN_MILLI, (q999 - q99) / math.log(10.0))


def exceedance(maxima: I64, found: I64) -> F64:
    """(5,) share of these maxima at or above each level's threshold: the realised rates. maxima : (n,), n > 0."""
    shares: F64 = (maxima[:, None] >= found[None, :]).mean(axis=0)
    return shares
