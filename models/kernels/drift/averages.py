"""Has a client's input moved? Two averages of what it sends, one quick and one slow, and how far they stand apart.

Numbers are in 1/64 of a value unit. The movement of the whole population, as far as the block knows it, is taken off
each row before it counts, so that both averages forget it at the pace at which they forget rows.
"""

import numpy as np
from numpy.typing import NDArray

from models.kernels.fold.slots import make_room, take_page
from models.kernels.jit import kernel, part
from models.kernels.layout import PAGE_COST, Table
from models.kernels.numbers import size_bucket
from models.rows import I16, I32

Pages = NDArray[np.void]

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


@part
def follow(pages: Pages, averages: I32, moved: I32, page: int, block: int, values: I16, row: int) -> int:
    """Let one more row count; the averages' mean squared distance, or -1 while the page has few rows.

    averages : (pages, 2, d)   moved : (blocks, d)   values : (rows, d). Arrays and not the tables they stand in: to
    hand over one of those costs more than all the arithmetic.
    """
    pages[page].rows += 1
    rows = pages[page].rows
    apart2 = draw(averages, page, moved, block, values, row, size_bucket(rows) - 1)
    return int(apart2 // averages.shape[2]) if rows >= ROWS_MIN else -1


@part
def is_new(pages: Pages, page: int, day: int) -> bool:
    """True once a day."""
    told = pages[page].told_day == day
    pages[page].told_day = day
    return not told


@kernel
def open_page(table: Table, slot: int, block: int, capacity: int) -> None:
    """A page for a client at its 16th distinct row."""
    client = table.clients[slot]
    make_room(table, block, table.costs[PAGE_COST], capacity, slot)
    client.page = take_page(table)
    table.block_bytes[block] += table.costs[PAGE_COST]
    page = table.pages[client.page]
    page.rows, page.since_ms, page.told_day = 0, client.clock_ms, NO_DAY


@part
def draw(averages: I32, page: int, moved: I32, block: int, values: I16, row: int, bits: int) -> int:
    """Draw both averages to a row; the squared distance between them. Shifts round down, on every processor.

    bits : whole binary logarithm of the number of rows, so that the first of them weigh about alike.
    """
    fast_bits, slow_bits = min(FAST_BITS, bits), min(SLOW_BITS, bits)
    total = np.int64(0)
    for i in range(averages.shape[2]):
        x = (np.int64(values[row, i]) << FINE_BITS) - np.int64(moved[block, i])
        fast, slow = np.int64(averages[page, FAST, i]), np.int64(averages[page, SLOW, i])
        fast += (x - fast) >> fast_bits
        slow += (x - slow) >> slow_bits
        averages[page, FAST, i], averages[page, SLOW, i] = fast, slow
        total += (fast - slow) * (fast - slow)
    return int(total)
