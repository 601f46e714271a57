"""What the next rows will need is fetched while this one is worked on: a client's state is seldom in a cache.

Fetching changes nothing: whatever is guessed wrong costs time and no more.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.jit import fetch_line, part
from models.kernels.layout import RowBatch, Table
from models.kernels.numbers import mix64

FAR, NEAR, NEXT = 12, 8, 4
"""So many rows ahead comes its place in the index, then its client, then what that client points to."""
LINE = 64
RING_FETCHED, ANCHORS_FETCHED = 16, 4
"""Most entries and families of a client; what lies behind them the processor guesses by itself."""


@part
def fetch(array: NDArray[Any], first: int, count: int) -> None:
    """Ask for array[first : first + count]."""
    stride = array.strides[0]
    end = (first + count) * stride
    for at in range(first * stride, end, LINE):
        fetch_line(array, at)
    fetch_line(array, end - 1)


@part
def look_ahead(table: Table, batch: RowBatch, row: int) -> None:
    rows = len(batch.client)
    if row + FAR < rows:
        fetch(table.places, home(table, batch.client[row + FAR]), 1)
    if row + NEAR < rows:
        slot = table.places[home(table, batch.client[row + NEAR])]
        if slot >= 0:
            fetch(table.clients, slot, 1)
            fetch(table.bets, slot, 1)
    if row + NEXT < rows:
        slot = table.places[home(table, batch.client[row + NEXT])]
        if slot >= 0:
            fetch_pages(table, slot)


@part
def home(table: Table, key: np.uint64) -> int:
    """Where a client's place is looked for first, and mostly found."""
    return int(mix64(key) & np.uint64(len(table.places) - 1))


@part
def fetch_pages(table: Table, slot: int) -> None:
    client = table.clients[slot]
    if client.ring_size > 0:
        start, count = client.ring_start, min(RING_FETCHED, client.ring_size)
        fetch(table.ring, start, count)
        fetch(table.ring_values, start, count)
        fetch(table.ring_fields, start, count)
    if client.anchor_count > 0:
        start, count = client.anchor_start, min(ANCHORS_FETCHED, client.anchor_count)
        fetch(table.anchors, start, count)
        fetch(table.anchor_exact, start, count)
        fetch(table.anchor_values, start, count)
        fetch(table.anchor_fields, start, count)
        fetch(table.wealth, start, count)
        fetch(table.parts, start, count)
        fetch(table.seen, start, count)
    if client.page >= 0:
        fetch(table.pages, client.page, 1)
        fetch(table.averages, client.page, 1)
