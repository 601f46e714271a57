"""Screening: exclude fitting clients that look like attackers from the fit.

Tables count what clients did. A client that only probes sends hundreds of variants where an ordinary client sends one,
and would make probing look ordinary. Two passes:

1. Fit a conservative reference on the first rows of each client, with tails that one client in a hundred cannot
   lengthen; set aside fitting clients far beyond all others.
2. Fit a reference on all rows of the others; re-admit those that are not outliers under it. These are honest clients
   with long days.

Only fitting clients are screened. All other clients certify: excluding any would make thresholds promise too much.

On the demonstration's day the first pass set aside 9 of 970 honest clients, all of them re-quoters, which raised
thresholds by 30 to 70 %; the second pass re-admitted all 9.
"""

from collections.abc import Sequence

import numpy as np

from detector.calibrate import baseline
from detector.calibrate.client_days import DailyMaxima, select
from detector.calibrate.fit import daily_maxima, fit_reference, is_fitting
from models.artefacts.certificate import BUDGETS
from models.encoders.base import Encoder
from models.kernels.layout import CLASS_COUNT
from models.rows import U64, Rows

SUSPICIOUS = 16_000
"""Thousandths of a tail length. On generated clients ordinary ones stayed below 2,600 and sweepers exceeded 20,000,
with up to 30 of them among 930."""
SHARE_MAX = BUDGETS[1]
"""Largest share of a class's fitting clients to set aside: what more of them do is ordinary in that class. Attackers
who are more than the loosest budget determine thresholds anyway."""


def suspicious(encoder: Encoder, decision_threshold: float | None, batches: Sequence[Rows]) -> U64:
    """Fitting clients of one space to exclude from the fit."""
    fitting = [select(rows, is_fitting(rows.client)) for rows in batches]
    conservative = fit_reference(encoder, decision_threshold, fitting, cold=True, within=baseline.BODY)
    outliers = _outliers(daily_maxima(encoder, decision_threshold, conservative, fitting))
    if not len(outliers):
        return outliers
    others = fit_reference(encoder, decision_threshold, [_of(rows, outliers, False) for rows in fitting])
    their_rows = [_of(rows, outliers, True) for rows in fitting]
    days = daily_maxima(encoder, decision_threshold, others, their_rows)
    return np.unique(days.client[days.statistic >= SUSPICIOUS])


def _outliers(days: DailyMaxima) -> U64:
    """Clients far beyond the others of their class, at most SHARE_MAX of it, the farthest first."""
    outliers = [np.zeros(0, np.uint64)]
    for k in range(CLASS_COUNT):
        own = days.client_class == k
        order = np.argsort(-days.statistic[own], kind="stable")
        most = days.client[own][order[days.statistic[own][order] >= SUSPICIOUS]]
        distinct = most[np.sort(np.unique(most, return_index=True)[1])]
        outliers.append(distinct[: int(SHARE_MAX * len(np.unique(days.client[own])))])
    return np.unique(np.concatenate(outliers))


def _of(rows: Rows, clients: U64, among: bool) -> Rows:
    return select(rows, np.isin(rows.client, clients) == among)
