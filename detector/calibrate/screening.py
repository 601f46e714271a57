"""Who may teach what is ordinary: suspicious clients never do.

Tables count what clients did; one that only probes sends hundreds of variants where ordinary clients send one, and
would make its own ways look ordinary. So a first, cautious reference is fitted on the first rows of each client, and
fitting clients that stand far beyond everybody under it are set aside. Honest ones with long days are among them: who
does not stand out under a reference fitted on all rows of the others is taken back. Only among fitting clients is
anybody left out: thresholds come from the others, all of them, or they would promise too much.

On the demonstration's day the first step set 9 of 970 honest clients aside, all of them re-quoters, which raised
thresholds by 30 to 70 %; the second took all of them back.
"""

from collections.abc import Sequence

import numpy as np

from detector.calibrate.client_days import DailyMaxima, select
from detector.calibrate.fit import daily_maxima, fit_reference, is_fitting
from models.artefacts.certificate import BUDGETS
from models.encoders.base import Encoder
from models.kernels.layout import CLASS_COUNT
from models.rows import U64, Rows

SUSPICIOUS = 16_000
"""Thousandths of a tail length. On generated clients the ordinary stayed below 2,600 and sweepers stood above 20,000,
up to 30 of them among 930."""
SHARE_MAX = BUDGETS[1]
"""Of a class's fitting clients: what more of them do is ordinary in that class. Attackers who are more than the loosest
budget choose thresholds anyway."""


def suspicious(encoder: Encoder, decision_threshold: float | None, batches: Sequence[Rows]) -> U64:
    """Fitting clients of one space that are not to fit."""
    fitting = [select(rows, is_fitting(rows.client)) for rows in batches]
    cautious = fit_reference(encoder, decision_threshold, fitting, cold=True)
    doubtful = _far(daily_maxima(encoder, decision_threshold, cautious, fitting))
    if not len(doubtful):
        return doubtful
    others = fit_reference(encoder, decision_threshold, [_of(rows, doubtful, False) for rows in fitting])
    theirs = [_of(rows, doubtful, True) for rows in fitting]
    days = daily_maxima(encoder, decision_threshold, others, theirs)
    return np.unique(days.client[days.statistic >= SUSPICIOUS])


def _far(days: DailyMaxima) -> U64:
    """Clients far beyond the others of their class; if they are many, the farthest."""
    found = [np.zeros(0, np.uint64)]
    for k in range(CLASS_COUNT):
        own = days.client_class == k
        order = np.argsort(-days.statistic[own], kind="stable")
        most = days.client[own][order[days.statistic[own][order] >= SUSPICIOUS]]
        distinct = most[np.sort(np.unique(most, return_index=True)[1])]
        found.append(distinct[: int(SHARE_MAX * len(np.unique(days.client[own])))])
    return np.unique(np.concatenate(found))


def _of(rows: Rows, clients: U64, among: bool) -> Rows:
    return select(rows, np.isin(rows.client, clients) == among)
