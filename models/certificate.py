"""Thresholds from benign clients that fitted nothing else: client-level split conformal.

The ceil((m + 1)(1 - beta))-th smallest of m exchangeable clients' daily maxima is exceeded by a new client with
probability at most beta (Vovk, Gammerman, Shafer 2005, ch. 2; Papadopoulos et al. 2002), averaged over calibrations.
"""

import math

import numpy as np

from models.rows import I64

BUDGETS = (1.0, 1e-2, 1e-3, 1e-4, 1e-5)
"""False alarms per benign client-day, by level; level 0 is no decision."""
EXTRAPOLATED_SLOPE_MILLI = 3_333
"""Thousandths of a tail length per factor e beyond what m clients can show. For the shortest tail, .3 nats, this is one
nat per factor e, what the likelihood ratio by itself would promise; for longer tails it leans to the quiet side."""


def thresholds(maxima: I64) -> tuple[I64, list[bool]]:
    """Thresholds by level (5,), thousandths, and which of them the calibration can promise.

    maxima : (m,) each certifying client's largest statistic over one day. A budget below 1/(m + 1) has no order
    statistic: its threshold is extrapolated from the largest, and is not certified. m = 0 gives nothing but zeros.
    """
    m = len(maxima)
    ordered = np.sort(maxima)
    found = np.zeros(len(BUDGETS), np.int64)
    certified = [False] * len(BUDGETS)
    for level, budget in enumerate(BUDGETS):
        if level == 0 or m == 0:
            continue
        rank = math.ceil((m + 1) * (1.0 - budget))
        if rank <= m:
            found[level] = ordered[rank - 1] + 1
            certified[level] = True
        else:
            beyond = math.log(1.0 / (budget * (m + 1)))
            found[level] = ordered[-1] + 1 + round(EXTRAPOLATED_SLOPE_MILLI * beyond)
    return found, certified
