"""How much each fitting client counts in tables of rows: clients with many rows less per row, so that no few decide.

Tables count rows, because what a client does at its fortieth variant cannot be learned from clients with one
(models/client_shares.py, `rows_limit`).
"""

from collections.abc import Sequence

import numpy as np

from detector.calibrate.client_days import select
from models.client_shares import rows_limit
from models.kernels.layout import CLASS_COUNT
from models.rows import F64, I64, U64, Rows


def by_halvings(batches: Sequence[Rows]) -> list[tuple[int, list[Rows]]]:
    """(h, rows of the clients whose rows count 2**-h each). Clients are folded alike in whichever part they stand."""
    if not batches:
        return []
    client = np.concatenate([rows.client for rows in batches])
    client_class = np.minimum(CLASS_COUNT - 1, np.concatenate([rows.client_class for rows in batches]))
    clients, first, rows_of = np.unique(client, return_index=True, return_counts=True)
    halvings = np.zeros(len(clients), np.int64)
    for k in range(CLASS_COUNT):
        own = client_class[first] == k
        if own.any():
            most = rows_limit(rows_of[own])
            halvings[own] = np.maximum(0, np.ceil(np.log2(rows_of[own] / most)))
    return [(int(h), [_of(rows, clients[halvings == h]) for rows in batches]) for h in np.unique(halvings)]


def weighed(counts: Sequence[tuple[int, I64]]) -> I64:
    """The sum of counts, halved as often as said, to whole rows."""
    total: F64 = np.sum([part / 2.0**halvings for halvings, part in counts], axis=0)
    return np.rint(total).astype(np.int64)


def _of(rows: Rows, clients: U64) -> Rows:
    return select(rows, np.isin(rows.client, clients))
