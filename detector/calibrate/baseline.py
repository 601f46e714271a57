"""Baseline statistics of benign history: low margins, novelty levels, clients' exponents, lengths of tails.

Computed from fitting clients only; certifying clients are never used here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.calibrate.client_days import Days
from detector.evidence import FAMILY_PROCESSES, JOINT, PROCESSES
from models.client_shares import limited_rows, limited_weights, quantiles, row_weights
from models.kernels.layout import CLASS_COUNT, CLIENT_PROCESSES, COUNTS, NOVELTY_EDGES
from models.rows import F32, F64, I32, I64, U64, Rows

LOW_MARGIN_SHARE = 0.1
OWN_ROWS_MIN = 200
OWN_DAYS_MIN = 50
TAIL_SCALE_MIN = {
    "offgrid": 2000, "membership": 2000, "explain": 2000, "timing": 1000, "unreadable": 1000, "unjudged": 1000,
    "unknown_model": 1000,
} | dict.fromkeys(COUNTS, 1000)  # fmt: skip
"""Milli-nats; of counts, thousandths. Large where a single odd row carries much evidence."""
TAIL_SCALE_MIN_OTHERS = 300
TAIL: tuple[float, float] = (0.99, 0.999)
"""A benign tail begins at the first quantile over clients' days, and its length is measured up to the second."""
BODY: tuple[float, float] = (0.9, 0.98)
"""The same where one client in a hundred may be an attacker, who would be measured by his own evidence otherwise."""
OUTCOMES_MIN = 200
"""Fewer outcomes of a client bet than this turn it off (no margins or times logged): it would judge the log."""
TOKENS_SHARE_MIN = 0.05
"""Of clients; where fewer log tokens, hardly anybody's would be compared."""
NOVELTY_SHARES: F64 = 1.0 - np.exp2(-np.arange(1.0, NOVELTY_EDGES + 1))
"""Quantiles at which the levels of novelty begin."""
EXPONENT_SHARE = 0.001
EXPONENT_PRIOR_ROWS = 2.0
CONSUMER = 0


def low_margins(batches: Sequence[Rows]) -> F32:
    """(3,) lowest decile of the margin per class; of all classes if a class has few rows; 0 if no margin is known."""
    return _class_quantiles(batches, "margin", np.array([LOW_MARGIN_SHARE]), 0.0)[:, 0]


def novelty_edges(batches: Sequence[Rows]) -> F32:
    """(3, 15) edges of the levels of novelty: the 1/2, 3/4, 7/8 … quantiles of a class's rows; infinite without."""
    return _class_quantiles(batches, "novelty", NOVELTY_SHARES, np.inf)


def _class_quantiles(batches: Sequence[Rows], column: str, shares: F64, without: float) -> F32:
    """(3, k) quantiles of a column, NaN for no opinion, in which all clients weigh the same; of all classes if a class
    has few rows; `without` if there are none."""
    found = np.full((CLASS_COUNT, len(shares)), without, np.float32)
    if not batches:
        return found
    values = np.concatenate([getattr(rows, column) for rows in batches])
    client_class = np.concatenate([rows.client_class for rows in batches])
    client = np.concatenate([rows.client for rows in batches])
    known = ~np.isnan(values)
    for k in range(CLASS_COUNT):
        own = known & (client_class == k)
        own = own if own.sum() >= OWN_ROWS_MIN else known
        if own.any():
            found[k] = quantiles(values[own], row_weights(client[own]), shares)
    return found


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
    weights = row_weights(days.client)
    with_tokens = weights[days.evidence[:, names.index("tokens")] > 0].sum()
    if with_tokens <= TOKENS_SHARE_MIN * weights.sum():
        off.add("tokens")
    return off


def is_count() -> NDArray[np.bool_]:
    """(processes,) True for those that count instead of betting."""
    return np.array([process.name in COUNTS for process in PROCESSES])


def tails(days: Days, within: tuple[float, float]) -> tuple[I64, I64]:
    """Begin (at least 0: there is no negative evidence) and length of the benign tail, per class and process.

    Over clients' days; a client with very many of them counts as ten average ones. Classes with few
    client-days use the larger of their own values and those of all classes. Sums over families apply to consumers only:
    the many applicants of a broker would add up.
    """
    least = np.array([TAIL_SCALE_MIN.get(process.name, TAIL_SCALE_MIN_OTHERS) for process in PROCESSES])
    tail = np.zeros((CLASS_COUNT, len(PROCESSES)), np.int64)
    scale = np.zeros_like(tail)
    overall = _tail(days.evidence, days.client, least, within)
    for k in range(CLASS_COUNT):
        own = days.client_class == k
        own_tail = _tail(days.evidence[own], days.client[own], least, within)
        if limited_rows(days.client[own]) < OWN_DAYS_MIN:
            own_tail = (np.maximum(own_tail[0], overall[0]), np.maximum(own_tail[1], overall[1]))
        tail[k], scale[k] = own_tail
        if k != CONSUMER:
            scale[k, FAMILY_PROCESSES : FAMILY_PROCESSES + JOINT] = 0
    return tail, scale


def _tail(evidence: I32, client: U64, least: I64, within: tuple[float, float]) -> tuple[I64, I64]:
    if not len(evidence):
        return np.zeros(len(least), np.int64), least.astype(np.int64)
    weights = limited_weights(client)
    begin, end = np.maximum(
        0, np.array([quantiles(column.astype(np.int64), weights, within) for column in evidence.T]).T
    )
    factor = (1.0 - within[0]) / (1.0 - within[1])
    return begin.astype(np.int64), np.maximum(least, np.rint((end - begin) / np.log(factor))).astype(np.int64)
