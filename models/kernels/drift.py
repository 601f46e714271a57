"""Has a client's input moved? Two averages of what it sends, one quick and one slow, and how far they stand apart.

Numbers are in 1/64 of a value unit. The movement of the whole population, as far as the block knows it, is taken off
each row before it counts, so that both averages forget it at the pace at which they forget rows.
"""

import numpy as np

from models.kernels.jit import kernel
from models.kernels.layout import DRIFT, Batch, Nulls, Table, Tally
from models.kernels.numbers import size_bucket
from models.kernels.slots import make_room, take_page
from models.rows import I64

FOLLOWED_FROM = 16
"""Distinct rows at which a client gets its page of averages."""
ROWS_MIN = 32
"""Rows on the page before anything is said."""
FAST, SLOW = 0, 1
FAST_BITS, SLOW_BITS = 3, 6
"""Weights of a new row: 1/8 and 1/64."""
FINE_BITS = 6
"""Fixed point of the averages: values times 64."""
NO_DAY = -(1 << 31)


@kernel
def follow(
    table: Table, nulls: Nulls, slot: int, block: int, capacity: int, batch: Batch, row: int, tally: Tally, verdict: I64
) -> bool:
    """Let a distinct row of a client beyond its first 15 count; True if it crosses the limit, once a day at most."""
    client = table.clients[slot]
    if client.page < 0:
        open_page(table, slot, block, capacity)
    page = table.pages[client.page]
    page.rows += 1
    apart2 = move(table, client.page, block, batch, row, size_bucket(page.rows) - 1)
    if page.rows < ROWS_MIN:
        return False
    statistic = apart2 // batch.values.shape[1]
    if len(tally.drift) > 0:
        tally.drift[row] = statistic
    verdict[DRIFT] = statistic
    if statistic < nulls.drift[min(2, int(batch.klass[row]))] or page.told_day == client.day:
        return False
    page.told_day = client.day
    return True


@kernel
def open_page(table: Table, slot: int, block: int, capacity: int) -> None:
    client = table.clients[slot]
    make_room(table, block, table.costs[3], capacity, slot)
    client.page = take_page(table)
    table.block_bytes[block] += table.costs[3]
    page = table.pages[client.page]
    page.rows, page.since_ms, page.told_day = 0, client.clock_ms, NO_DAY


@kernel
def move(table: Table, at: int, block: int, batch: Batch, row: int, bits: int) -> int:
    """Draw both averages to a row; the squared distance between them. Shifts round down, on every processor.

    bits : whole binary logarithm of the number of rows, so that the first of them weigh about alike.
    """
    fast_bits, slow_bits = min(FAST_BITS, bits), min(SLOW_BITS, bits)
    total = np.int64(0)
    for i in range(batch.values.shape[1]):
        x = (np.int64(batch.values[row, i]) << FINE_BITS) - np.int64(table.moved[block, i])
        fast, slow = np.int64(table.averages[at, FAST, i]), np.int64(table.averages[at, SLOW, i])
        fast += (x - fast) >> fast_bits
        slow += (x - slow) >> slow_bits
        table.averages[at, FAST, i], table.averages[at, SLOW, i] = fast, slow
        total += (fast - slow) * (fast - slow)
    return int(total)
