"""Baseline statistics of benign history: low margins, novelty levels, clients' exponents, lengths of tails.

Computed from fitting clients only; certifying clients are never used here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.calibrate.client_days import Days
from detector.evidence import FAMILY_PROCESSES, JOINT, PROCESSES
from models.kernels.layout import CLASS_COUNT, CLIENT_PROCESSES, COUNTS, NOVELTY_EDGES
from models.rows import F32, F64, I32, I64, Rows

LOW_MARGIN_SHARE = 0.1
OWN_MARGINS_MIN = 200
OWN_DAYS_MIN = 50
TAIL_SCALE_MIN = {
    "offgrid": 2000, "membership": 2000, "explain": 2000, "timing": 1000, "unreadable": 1000, "unjudged": 1000,
    "unknown_model": 1000,
} | dict.fromkeys(COUNTS, 1000)  # fmt: skip
"""Milli-nats; of counts, thousandths. Large where a single odd row carries much evidence."""
TAIL_SCALE_MIN_OTHERS = 300
OUTCOMES_MIN = 200
"""Fewer outcomes of a client bet than this turn it off (no margins or times logged): it would judge the log."""
NOVELTY_SHARES = 1.0 - 2.0 ** -np.arange(1, NOVELTY_EDGES + 1)
"""Quantiles at which the levels of novelty begin."""
EXPONENT_SHARE = 0.001
EXPONENT_PRIOR_ROWS = 2.0
CONSUMER = 0


def low_margins(batches: Sequence[Rows]) -> F32:
    """(3,) lowest decile of the margin per class; of all classes if a class has few rows; 0 if no margin is known."""
    margins = np.concatenate([rows.margin for rows in batches] or [np.zeros(0, np.float32)])
    client_class = np.concatenate([rows.client_class for rows in batches] or [np.zeros(0, np.uint8)])
    known = ~np.isnan(margins)
    low = np.zeros(CLASS_COUNT, np.float32)
    for k in range(CLASS_COUNT):
        own = margins[known & (client_class == k)]
        own = own if len(own) >= OWN_MARGINS_MIN else margins[known]
        if len(own):
            low[k] = np.quantile(own, LOW_MARGIN_SHARE, method="higher")
    return low


def novelty_edges(batches: Sequence[Rows]) -> F32:
    """(3, 15) edges of the levels of novelty: the 1/2, 3/4, 7/8 … quantiles of a class's rows; infinite without."""
    novelty = np.concatenate([rows.novelty for rows in batches] or [np.zeros(0, np.float32)])
    client_class = np.concatenate([rows.client_class for rows in batches] or [np.zeros(0, np.uint8)])
    known = ~np.isnan(novelty)
    edges = np.full((CLASS_COUNT, NOVELTY_EDGES), np.inf, np.float32)
    for k in range(CLASS_COUNT):
        own = novelty[known & (client_class == k)]
        own = own if len(own) >= OWN_MARGINS_MIN else novelty[known]
        if len(own):
            edges[k] = np.quantile(own, NOVELTY_SHARES, method="higher")
    return edges


def exponents(batches: Sequence[Rows], edges: F32) -> F64:
    """(3,) for each class the lowest .1 % of clients' exponents a, where a client's p-values of novelty follow p ** a.

    A client whose rows are all novel, as some ordinary clients' are, has a small exponent: rows / sum of -log p
    (maximum likelihood), shrunk towards 1 by a prior worth two ordinary rows. 1 if no novelty is known.
    """
    client = np.concatenate([rows.client for rows in batches])
    client_class = np.minimum(2, np.concatenate([rows.client_class for rows in batches])).astype(np.int64)
    novelty = np.concatenate([rows.novelty for rows in batches])
    known = ~np.isnan(novelty)
    client, client_class, novelty = client[known], client_class[known], novelty[known]
    exponents = np.ones(CLASS_COUNT)
    of_classes: list[F64] = []
    for k in range(CLASS_COUNT):
        level = np.searchsorted(edges[k], novelty[client_class == k], side="right")
        _, owner = np.unique(client[client_class == k], return_inverse=True)
        surprise = np.bincount(owner.reshape(-1), (level + 0.5) * np.log(2.0))
        rows = np.bincount(owner.reshape(-1))
        of_classes.append((rows + EXPONENT_PRIOR_ROWS) / (surprise + EXPONENT_PRIOR_ROWS))
    for k, own in enumerate(of_classes):
        own = own if len(own) >= OWN_DAYS_MIN else np.concatenate(of_classes)
        if len(own):
            exponents[k] = min(1.0, float(np.quantile(own, EXPONENT_SHARE, method="lower")))
    return exponents


def without_outcomes(counts: I64, days: Days) -> set[str]:
    """Names of processes for which history has too few outcomes. counts : (3, 8, 8, 16)."""
    off = {name for p, name in enumerate(CLIENT_PROCESSES) if counts[:, p].sum() < OUTCOMES_MIN}
    names = [process.name for process in PROCESSES]
    if not len(days.evidence) or days.evidence[:, names.index("tokens")].max() == 0:
        off.add("tokens")
    return off


def is_count() -> NDArray[np.bool_]:
    """(processes,) True for those that count instead of betting."""
    return np.array([process.name in COUNTS for process in PROCESSES])


def tails(days: Days) -> tuple[I64, I64]:
    """99 % quantile (at least 0: there is no negative evidence) and length of the benign tail, per class and process.

    Classes with few client-days use the larger of their own values and those of all classes. Sums over families apply
    to consumers only: the many applicants of a broker would add up.
    """
    least = np.array([TAIL_SCALE_MIN.get(process.name, TAIL_SCALE_MIN_OTHERS) for process in PROCESSES])
    tail = np.zeros((CLASS_COUNT, len(PROCESSES)), np.int64)
    scale = np.zeros_like(tail)
    overall = _tail(days.evidence, least)
    for k in range(CLASS_COUNT):
        own = days.evidence[days.client_class == k]
        own_tail = _tail(own, least)
        if len(own) < OWN_DAYS_MIN:
            own_tail = (np.maximum(own_tail[0], overall[0]), np.maximum(own_tail[1], overall[1]))
        tail[k], scale[k] = own_tail
        if k != CONSUMER:
            scale[k, FAMILY_PROCESSES : FAMILY_PROCESSES + JOINT] = 0
    return tail, scale


def _tail(evidence: I32, least: I64) -> tuple[I64, I64]:
    if not len(evidence):
        return np.zeros(len(least), np.int64), least.astype(np.int64)
    q99, q999 = np.maximum(0, np.quantile(evidence, (0.99, 0.999), axis=0, method="higher"))
    return q99.astype(np.int64), np.maximum(least, np.rint((q999 - q99) / np.log(10.0))).astype(np.int64)
