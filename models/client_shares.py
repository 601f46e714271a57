"""Statistics of clients, not of rows: every client weighs the same, however many rows it sent, or not much more.

Whoever sends a million rows then moves a fitted number no further than whoever sends one, and one client in a hundred
moves a share by at most one in a hundred. Weights are whole numbers, so that sums are the same on every processor.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.rows import F64, I64, U64

WEIGHT = 4096
"""Of one client, over all its rows. A client with more rows than this weighs more than the others."""

LIMIT = 10
"""Where rows count, and not clients, one client counts as this many average ones at most."""

Number = TypeVar("Number", np.int16, np.int64, np.float32, np.float64)


def row_weights(clients: U64) -> I64:
    """(n,) the weight of each row: an equal part, at least 1, of WEIGHT, rounded. clients : (n,) who sent it."""
    _, place, rows = np.unique(clients, return_inverse=True, return_counts=True)
    weights: I64 = np.maximum(1, np.rint(WEIGHT / rows)).astype(np.int64)
    return weights[place.reshape(-1)]


def rows_limit(rows_of: I64) -> int:
    """The largest number of rows that is at most LIMIT times the mean of rows so limited.

    rows_of : (c,) of each client, c > 0. With this limit one client in a hundred, whatever it sends, makes up at most
    LIMIT per cent of what is counted.
    """
    ordered = np.sort(rows_of)
    sums = np.concatenate(([0], np.cumsum(ordered)))
    candidates = np.arange(1, int(ordered[-1]) + 1)
    below = np.searchsorted(ordered, candidates)
    counted = sums[below] + candidates * (len(ordered) - below)
    return int(candidates[candidates * len(ordered) <= LIMIT * counted][-1])


def limited_weights(clients: U64) -> I64:
    """(n,) WEIGHT for each row, less for clients with more rows than `rows_limit`. clients : (n,) who sent it."""
    if not len(clients):
        return np.zeros(0, np.int64)
    _, place, rows = np.unique(clients, return_inverse=True, return_counts=True)
    weights: I64 = np.maximum(1, np.rint(WEIGHT * np.minimum(1.0, rows_limit(rows) / rows))).astype(np.int64)
    return weights[place.reshape(-1)]


def limited_rows(clients: U64) -> float:
    """How many rows there are, those of clients with very many counted less."""
    return int(limited_weights(clients).sum()) / WEIGHT


def quantiles(values: NDArray[Number], weights: I64, shares: F64 | tuple[float, ...]) -> NDArray[Number]:
    """The least values below or at which lies a share of the weight: the inverse of the distribution function.

    values, weights : (n,), n > 0, without NaN   shares : (k,) in (0, 1)   Returns (k,).
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.asarray(shares) * float(reached[-1]), "left")
    return values[order[np.minimum(places, len(values) - 1)]]


def fair_rows(clients: U64) -> I64:
    """As many rows as there are, in their order, so that every client has as many as any other (but for rounding).

    Systematic sampling (Madow 1944) by weight: every row once if all clients sent as many; rows of a client with few
    are there several times.
    """
    n = len(clients)
    if not n:
        return np.zeros(0, np.int64)
    reached = np.cumsum(row_weights(clients))
    middles = (2 * np.arange(n) + 1) * int(reached[-1]) // (2 * n)
    return np.searchsorted(reached, middles, "right").astype(np.int64)
