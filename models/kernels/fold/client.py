"""The client itself: its own clock, its counts, the bets on all that it sends, and whether its inputs have moved.

Two averages of a client's inputs, one fast and one slow, and the distance between them, in 1/64 of a value unit. The
movement of the whole population, as far as the block knows it, is subtracted from each row first, so that both averages
forget it at the pace at which they forget rows.
"""

import numpy as np
from numpy.typing import NDArray

from models.kernels.fold.families import forget_old
from models.kernels.fold.slots import make_room, take_page
from models.kernels.jit import kernel, part
from models.kernels.layout import (
    BACK,
    COVERAGE,
    EXPLAIN,
    MARGIN_SEEK,
    MEMBERSHIP,
    NOVELTY,
    NOVELTY_ROBUST,
    OFFGRID,
    PAGE_COST,
    TIMING,
    UNJUDGED,
    UNKNOWN_MODEL,
    UNREADABLE,
    RowBatch,
    Table,
    Walk,
)
from models.kernels.numbers import CEILING, NEVER, gap_bucket, size_bucket, softplus, variant_bucket
from models.rows import (
    F32,
    FLAG_AHEAD,
    FLAG_EXPLAIN,
    FLAG_MEMBER,
    FLAG_UNJUDGED,
    FLAG_UNKNOWN_MODEL,
    FLAG_UNREADABLE,
    I16,
    I32,
    I64,
)

MINUTE_MS = 60_000
DAY_MS = 86_400_000
HALF_LIFE_MS = 7 * DAY_MS
FORGET_MS = 30 * DAY_MS
LN2_MICRO = 693_147  # ln 2 in 1e-6; 1,000 of these are one milli-nat
REGULAR_PARTS = 20
"""Two gaps are alike if they differ by at most one part in so many of the longer."""

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
def tick(table: Table, slot: int, block: int, batch: RowBatch, row: int) -> int:
    """Move the client's own clock, which never goes back; let old evidence fade, the minute and the day turn.

    Returns the gap before the last row, ms, or -1; the gap before this one stands in the client.
    """
    client = table.clients[slot]
    time_ms, gap_before = batch.time_ms[row], client.gap_ms
    if client.rows == 0:
        client.clock_ms = client.decay_from_ms = time_ms
        client.day, client.minute = time_ms // DAY_MS, time_ms // MINUTE_MS
    else:
        client.gap_ms = max(np.int64(0), time_ms - client.clock_ms)
        if 0 < time_ms < client.clock_ms - MINUTE_MS:  # 0 is that of a row whose time is unknown
            table.heads[BACK] += 1
    client.clock_ms = max(client.clock_ms, time_ms)
    faded = ((client.clock_ms - client.decay_from_ms) * LN2_MICRO) // (HALF_LIFE_MS * 1000)
    if faded > 0:
        client.decay_from_ms += (faded * HALF_LIFE_MS * 1000) // LN2_MICRO
        for p in range(table.bets.shape[1]):
            table.bets[slot, p] = fade(table.bets[slot, p], faded)
        for a in range(client.anchor_start, client.anchor_start + client.anchor_count):
            for p in range(table.wealth.shape[1]):
                table.wealth[a, p] = fade(table.wealth[a, p], faded)
        forget_old(table, slot, block, client.clock_ms - FORGET_MS)
    day, minute = client.clock_ms // DAY_MS, client.clock_ms // MINUTE_MS
    if day != client.day:
        client.day = day
        client.rows_today = client.distinct_today = client.explained_today = 0
        client.tokens_today = 0
    if minute != client.minute:
        client.minute = minute
        client.rows_minute = 0
    client.rows += 1
    client.rows_today += 1
    client.rows_minute += 1
    client.tokens_today += np.int64(batch.tokens_in[row]) + np.int64(batch.tokens_out[row])
    return int(gap_before)


@part
def fade(evidence: int, faded: int) -> int:
    return int(max(np.int64(NEVER), np.int64(evidence) - faded))


@part
def bet(evidence: int, ratio: int) -> int:
    """Shiryaev-Roberts: log M <- log(1 + M) + log e (Pollak 1985), in milli-nats."""
    return int(min(softplus(evidence) + ratio, CEILING))


@part
def bet_on_reading(walk: Walk, slot: int, client_class: int, row: int) -> None:
    """Whether a row could be read: one outcome a process on every row, repeats and what cannot be judged included."""
    table, tally, flags = walk.table, walk.tally, walk.batch.flags[row] & ~walk.batch.quiet[row]
    client = table.clients[slot]
    bets, ratios = table.bets[slot], walk.nulls.client[client_class]
    counts = tally.client[client_class : client_class + 1]
    bucket = variant_bucket(client.rows - 1)
    unreadable = 1 if flags & (FLAG_UNREADABLE | FLAG_AHEAD) else 0
    unjudged, unknown = 1 if flags & FLAG_UNJUDGED else 0, 1 if flags & FLAG_UNKNOWN_MODEL else 0
    client.unreadable_rows += unreadable
    client.unjudged_rows += unjudged
    stake(bets, ratios, counts, UNREADABLE, bucket, unreadable)
    stake(bets, ratios, counts, UNJUDGED, bucket, unjudged)
    stake(bets, ratios, counts, UNKNOWN_MODEL, bucket, unknown)


@part
def bet_on_client(walk: Walk, slot: int, client_class: int, gap_before: int, row: int) -> None:
    """One outcome a process, on every distinct row; what it is worth depends on how many came before."""
    table, nulls, batch, tally = walk.table, walk.nulls, walk.batch, walk.tally
    client = table.clients[slot]
    bets, ratios = table.bets[slot], nulls.client[client_class]
    counts = tally.client[client_class : client_class + 1]
    bucket = variant_bucket(client.distinct)
    client.distinct += 1
    client.distinct_today += 1
    margin, flags = batch.margin[row], batch.flags[row]
    if not np.isnan(margin):
        low = 1 if margin < nulls.low_margin[client_class] else 0
        client.low_margin_rows += low
        stake(bets, ratios, counts, MARGIN_SEEK, bucket, low)
    off = 1 if batch.offgrid[row] != 0 else 0
    client.offgrid_rows += off
    client.offgrid_fields |= batch.offgrid[row]
    if batch.fields.shape[1] > 0:
        stake(bets, ratios, counts, OFFGRID, bucket, off)
    if not np.isnan(batch.novelty[row]):
        level = novelty_level(nulls.novelty, client_class, batch.novelty[row])
        stake(bets, ratios, counts, NOVELTY, bucket, level)
        stake(bets, ratios, counts, NOVELTY_ROBUST, bucket, level)
    if batch.cell[row] != 0:
        cell = np.uint64(1) << np.uint64((batch.cell[row] - 1) & 63)
        stake(bets, ratios, counts, COVERAGE, bucket, 0 if client.cells & cell else 1)
        client.cells |= cell
    member, explained = 1 if flags & FLAG_MEMBER else 0, 1 if flags & FLAG_EXPLAIN else 0
    client.member_rows += member
    client.explained_rows += explained
    client.explained_today += explained
    stake(bets, ratios, counts, MEMBERSHIP, bucket, member)
    stake(bets, ratios, counts, EXPLAIN, bucket, explained)
    if client.gap_ms > 0:
        stake(bets, ratios, counts, TIMING, bucket, timing_level(client.gap_ms, gap_before))


@part
def stake(bets: I32, ratios: I32, counts: I64, process: int, bucket: int, level: int) -> None:
    """Bet one process of a client on one outcome, and count it where counting is on.

    bets : (p,) of the client. ratios : (p, BUCKETS, CLIENT_LEVELS) of its class. counts : (1, …) alike, or (0, …).
    Only what is needed: a call with all of the table's columns costs more than the bet.
    """
    bets[process] = bet(bets[process], ratios[process, bucket, level])
    if len(counts) > 0:
        counts[0, process, bucket, level] += 1


@part
def novelty_level(edges: F32, client_class: int, novelty: np.float32) -> int:
    """Number of edges that a row's novelty reaches."""
    level = 0
    while level < edges.shape[1] and edges[client_class, level] <= novelty:
        level += 1
    return level


@part
def timing_level(gap_ms: int, gap_before_ms: int) -> int:
    """Twice the bucket of the gap, plus one if it repeats the gap before: machines are regular, people are not."""
    alike = REGULAR_PARTS * abs(gap_ms - gap_before_ms) <= max(gap_ms, gap_before_ms)
    return 2 * gap_bucket(gap_ms) + (1 if gap_before_ms > 0 and alike else 0)


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
