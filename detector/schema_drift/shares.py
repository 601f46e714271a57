"""How many ordinary clients send odd values, and how many are too many to be chance."""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from detector.schema_drift.clients import BITS, ODD, SIGNALS, signals_of
from models.rows import I64, U32, U64, Rows

HOUR_MS = 3_600_000
MILLION = 1_000_000
"""Shares are whole numbers in millionths: the test is exact, and the same on every machine."""

CLIENTS_MIN = 8
SHARE_MIN_PARTS = 10
"""At least one client in so many."""


def reference_shares(batches: Sequence[Rows], categories: frozenset[int]) -> I64:
    """(SIGNALS, BITS) share of client-hours with each bit in odd, offgrid and flags, in millionths, at least 1.

    batches : rows that the encoder was fitted on. A category that only one of their clients sent counts as unseen: it
    would have been, had that client been left out. categories : places of the fields that hold them.
    """
    client = np.concatenate([rows.client for rows in batches] or [np.zeros(0, np.uint64)])
    if not len(client):
        return np.full((SIGNALS, BITS), MILLION // 2)
    signals = np.concatenate([signals_of(rows) for rows in batches])
    fields = np.concatenate([rows.fields for rows in batches])
    for place in sorted(categories):
        alone = _of_one_client(fields[:, place].astype(np.int64), client)
        signals[:, ODD] |= alone.astype(np.uint32) << np.uint32(min(place, BITS - 1))
    hour = np.concatenate([rows.time_ms for rows in batches]) // HOUR_MS
    order = np.lexsort((client, hour))
    fresh = np.r_[True, (np.diff(hour[order]) != 0) | (client[order][1:] != client[order][:-1])]
    had: U32 = np.bitwise_or.reduceat(signals[order], np.flatnonzero(fresh), axis=0)
    shares = np.empty((SIGNALS, BITS), np.int64)
    for bit in range(BITS):
        shares[:, bit] = ((had >> np.uint32(bit)) & np.uint32(1)).sum(axis=0, dtype=np.int64)
    return (shares + 1) * MILLION // (len(had) + 2)


def _of_one_client(value: I64, client: U64) -> NDArray[np.bool_]:
    """(n,) whether only one client has a row's value."""
    low, high = np.full(1 << 16, np.iinfo(np.uint64).max), np.zeros(1 << 16, np.uint64)
    np.minimum.at(low, value, client)
    np.maximum.at(high, value, client)
    alone: NDArray[np.bool_] = low[value] == high[value]
    return alone


def is_news(clients: int, of_clients: int, share: int) -> bool:
    """Whether so many clients of so many are far above a share, in millionths."""
    if clients < CLIENTS_MIN or clients * SHARE_MIN_PARTS < of_clients:
        return False
    return bool(_tail(clients, of_clients, share) * MILLION < MILLION**of_clients)


def p_value(clients: int, of_clients: int, share: int) -> float:
    """Chance of as many clients or more, each with this share, in millionths (binomial, one-sided)."""
    return float(_tail(clients, of_clients, share) / MILLION**of_clients)


def _tail(clients: int, of_clients: int, share: int) -> int:
    """In units of MILLION ** -of_clients."""
    total = 0
    for k in range(clients, of_clients + 1):
        total += comb(of_clients, k) * share**k * (MILLION - share) ** (of_clients - k)
    return total
