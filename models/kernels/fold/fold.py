"""The walk of one frame's rows through the client table: start reading here.

row -> client -> delivered again? -> clock and decay -> could it be read? -> repeat? -> evidence of the client
    -> variant of what? -> evidence of the family -> one statistic -> over a threshold?
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.fold.client import (
    FOLLOWED_FROM,
    bet,
    bet_on_client,
    bet_on_reading,
    follow,
    is_new,
    open_page,
    tick,
)
from models.kernels.fold.families import extend, level_counts, promote, remember
from models.kernels.fold.match import describe, is_repeat, join
from models.kernels.fold.receipts import is_delivered_again, place_of, receive
from models.kernels.fold.slots import block_of, find, insert, make_room
from models.kernels.jit import fetch_line, kernel, part
from models.kernels.layout import (
    ANCHOR_BUMP,
    ANCHOR_MAX,
    CLASS_COUNT,
    CLIENT_BUMP,
    CLIENT_COST,
    CLIENT_FREE,
    CROSSED,
    DECISION_LEVELS,
    DONE,
    DRIFT,
    EXPLAINED_WORTH,
    FEATURES,
    FIELD,
    GROW,
    JOINABLE,
    LEAD_ANCHOR,
    LEAD_EVIDENCE,
    LEAD_PROCESS,
    MOVED,
    PAGE_BUMP,
    PAGE_FREE,
    RAISED_LEVEL,
    RECEIPT_BUMP,
    RECEIPT_MAX,
    REDELIVERED,
    RING_BUMP,
    RING_MAX,
    SKIPPED,
    SLOT,
    STATISTIC,
    RowBatch,
    Table,
    Walk,
)
from models.kernels.numbers import CEILING, COUNT_CEILING, NEVER, copy, mix64, size_bucket, variant_bucket
from models.rows import FLAG_UNJUDGED, I64

SUM_FLOOR = 500
"""What each family must exceed (milli-nats) to count in a sum over families."""
OFF = np.int64(-2_000_000_000)
FAR, NEAR, NEXT = 12, 8, 4
"""Rows ahead at which a row's place in the index is fetched, then its client, then what that client points to."""
LINE = 64
RING_FETCHED, ANCHORS_FETCHED = 16, 4
"""Most entries and families of a client; what lies behind them the processor guesses by itself."""


@kernel
def fold(walk: Walk, closed: I64, start: int) -> tuple[int, int]:
    """Apply rows from `start` on; returns (next row, DONE, GROW, or CROSSED and MOVED, one or both).

    closed : (blocks,) 1 where this frame lies below the block's own mark. GROW: the arrays need room before row
    `next` can be applied. CROSSED: row `next - 1` crossed a threshold, `walk.verdict` says how; decide, then go on.
    MOVED: so did its averages (client.py), whatever else fell at that row.
    """
    table, batch = walk.table, walk.batch
    blocks = np.uint64(len(table.block_head))
    for row in range(start, len(batch.client)):
        if not has_room(table):
            return row, GROW
        look_ahead(table, batch, row)
        key = batch.client[row]
        block = int(block_of(key, blocks))
        if closed[block] or not advances(table, block, batch, row):
            table.heads[SKIPPED] += 1
            continue
        slot = find(table, key)
        if slot < 0:
            make_room(table, block, table.costs[CLIENT_COST], walk.capacity, -1)
            slot = insert(table, key, block)
        status = apply(walk, slot, block, row)
        if status != DONE:
            return row + 1, status
    return len(batch.client), DONE


@part
def has_room(table: Table) -> bool:
    """One row takes at most one client, a larger ring, a larger page of anchors and of receipts, a page of averages."""
    free = table.heads[CLIENT_FREE] >= 0 or table.heads[CLIENT_BUMP] < len(table.clients)
    rings = table.heads[RING_BUMP] + RING_MAX <= len(table.ring)
    anchors = table.heads[ANCHOR_BUMP] + ANCHOR_MAX <= len(table.anchors)
    pages = table.heads[PAGE_FREE] >= 0 or table.heads[PAGE_BUMP] < len(table.pages)
    receipts = table.heads[RECEIPT_BUMP] + RECEIPT_MAX <= len(table.receipts)
    return bool(free and rings and anchors and pages and receipts)


@part
def advances(table: Table, block: int, batch: RowBatch, row: int) -> bool:
    """True, moving the mark, if a row lies beyond what its block has applied from this source."""
    offset, item, mark = batch.offset[row], batch.item[row], batch.mark[row]
    at, within = table.mark_offset[block, mark], table.mark_index[block, mark]
    if offset < at or (offset == at and item <= within):
        return False
    table.mark_offset[block, mark] = offset
    table.mark_index[block, mark] = item
    return True


@part
def apply(walk: Walk, slot: int, block: int, row: int) -> int:
    """One row of one client; CROSSED if it calls for a decision, MOVED if the client has drifted, else DONE."""
    table, batch, tally, verdict = walk.table, walk.batch, walk.tally, walk.verdict
    evidence, client = walk.scratch.evidence, table.clients[slot]
    client_class = min(CLASS_COUNT - 1, int(batch.client_class[row]))
    if is_delivered_again(table, slot, batch, row):
        table.heads[REDELIVERED] += 1
        return DONE
    gap_before = tick(table, slot, block, batch, row)
    receive(table, slot, block, walk.capacity, batch, row)
    bet_on_reading(walk, slot, client_class, row)
    status = DONE
    if batch.flags[row] & FLAG_UNJUDGED:
        pass  # there is no input to bet on
    elif is_repeat(table, slot, batch.exact[row]):
        client.repeats += 1
    else:
        status = bet_on_input(walk, slot, block, client_class, gap_before, row)
    statistic = weigh(walk, slot, client_class)
    before = client.statistic
    client.statistic = max(statistic, NEVER)
    if len(tally.statistic) > 0:
        copy(tally.evidence[row], evidence)
        tally.statistic[row] = client.statistic
    risen = client.statistic > before or evidence[verdict[LEAD_PROCESS]] >= CEILING  # there it cannot rise any more
    if risen and calls_for_decision(walk, slot, client_class, row):
        status |= CROSSED
    return status


@part
def bet_on_input(walk: Walk, slot: int, block: int, client_class: int, gap_before: int, row: int) -> int:
    """A distinct input: what it says of the client, and of the family that it joins. MOVED or DONE."""
    table, nulls, batch, tally, verdict = walk.table, walk.nulls, walk.batch, walk.tally, walk.verdict
    client = table.clients[slot]
    bet_on_client(walk, slot, client_class, gap_before, row)
    status = DONE
    if client.distinct >= FOLLOWED_FROM:
        if client.page < 0:
            open_page(table, slot, block, walk.capacity)
        apart = follow(table.pages, table.averages, table.moved, client.page, block, batch.values, row)
        if len(tally.drift) > 0:
            tally.drift[row] = apart
        if apart >= nulls.drift[client_class] and is_new(table.pages, client.page, client.day):
            verdict[DRIFT], status = apart, MOVED
    candidate = join(table, nulls, slot, batch, row)
    if candidate < 0:
        remember(table, slot, block, walk.capacity, batch, row)
    else:
        if candidate < RING_MAX:
            anchor = promote(table, nulls, slot, block, walk.capacity, candidate)
        else:
            anchor = client.anchor_start + (candidate - RING_MAX) // JOINABLE
        bet_on_family(walk, slot, anchor, client_class, row)
    return status


@part
def bet_on_family(walk: Walk, slot: int, anchor: int, client_class: int, row: int) -> None:
    """One joint outcome per variant and profile, factorised over the features."""
    table, nulls, batch, tally, levels = walk.table, walk.nulls, walk.batch, walk.tally, walk.scratch.levels
    client = table.clients[slot]
    client.variants += 1
    mask, step2 = describe(table, nulls, anchor, batch, row, levels, client_class)
    bucket = variant_bucket(table.anchors[anchor].variants)
    if len(tally.family) > 0:
        level_counts(tally.family[client_class, bucket], tally.field[client_class], levels)
    for p in range(table.wealth.shape[1]):
        joint = p < nulls.joint
        if joint and table.wealth[anchor, p] < 0:
            table.parts[anchor, p] = 0
        total = 0
        for j in range(len(FEATURES)):
            ratio = (
                nulls.field[client_class, levels[FIELD], p]
                if j == FIELD
                else nulls.family[client_class, bucket, j, levels[j], p]
            )
            total += ratio
            if joint:
                table.parts[anchor, p, j] += ratio
        table.wealth[anchor, p] = bet(table.wealth[anchor, p], total)
    extend(table, slot, anchor, batch, row, levels, mask, step2)


@part
def weigh(walk: Walk, slot: int, client_class: int) -> int:
    """Evidence of every process and their fusion: the largest standardised excess, of bets less what activity explains.

    Order of processes: of families (maximum over families), sums of the joint ones over families, of the client, and
    counts (layout.COUNTS). Fills evidence and each process's leading family.
    """
    table, nulls, verdict = walk.table, walk.nulls, walk.verdict
    evidence, anchors, client = walk.scratch.evidence, walk.scratch.anchors, table.clients[slot]
    singles, joint = table.wealth.shape[1], nulls.joint
    evidence[:] = NEVER
    anchors[:] = -1
    for p in range(joint):
        evidence[singles + p] = 0
    own = singles + joint
    counts = own + table.bets.shape[1]
    largest = counts + 3
    evidence[largest] = 0
    for i in range(client.anchor_count):
        a = client.anchor_start + i
        for p in range(singles):
            wealth = table.wealth[a, p]
            if wealth > evidence[p]:
                evidence[p], anchors[p] = wealth, i
            if p < joint and wealth > SUM_FLOOR:
                evidence[singles + p] = min(CEILING, evidence[singles + p] + wealth - SUM_FLOOR)
                anchors[singles + p] = anchors[p]
        size = min(COUNT_CEILING, 1000 * int(table.anchors[a].variants))
        if size > evidence[largest]:
            evidence[largest], anchors[largest] = size, i
    for p in range(table.bets.shape[1]):
        evidence[own + p] = table.bets[slot, p]
    inputs = int(client.distinct_today) + (EXPLAINED_WORTH - 1) * int(client.explained_today)
    evidence[counts] = int(min(COUNT_CEILING, 1000 * inputs))
    evidence[counts + 1] = int(min(COUNT_CEILING, 1000 * int(client.rows_minute)))
    evidence[counts + 2] = int(min(COUNT_CEILING, client.tokens_today))
    most, lead = OFF, 0
    for p in range(len(evidence)):
        if p == counts:  # counts measure activity: what activity explains is not taken from them
            most -= nulls.growth[client_class, size_bucket(client.rows_today)]
        scale = nulls.tail_scale[client_class, p]
        beyond = (np.int64(evidence[p]) - nulls.tail[client_class, p]) * 1000
        if scale > 0 and beyond >= (most + 1) * scale:  # floor(beyond / scale) > most, without dividing
            most, lead = beyond // scale, p
    verdict[LEAD_PROCESS], verdict[LEAD_ANCHOR], verdict[LEAD_EVIDENCE] = lead, anchors[lead], evidence[lead]
    verdict[STATISTIC], verdict[SLOT] = most, slot
    return int(max(most, OFF))


@kernel
def threshold_offset(key: np.uint64) -> int:
    """0 to 0.5, fixed per client and only upwards: two accounts cannot measure one threshold."""
    return int((key >> np.uint64(17)) % np.uint64(501))


@part
def calls_for_decision(walk: Walk, slot: int, client_class: int, row: int) -> bool:
    """A higher level than the one in force; after expiry, any level again. Asked when evidence has risen.

    What is in force is a matter of the broker's time where that is later: doors have no other.
    """
    client = walk.table.clients[slot]
    now_ms = max(client.clock_ms, walk.batch.append_ms[row])
    if now_ms < client.quiet_until_ms:
        return False
    offset = threshold_offset(client.key)
    level = 0
    for higher in range(1, DECISION_LEVELS):
        if client.statistic >= walk.nulls.thresholds[client_class, higher] + offset:
            level = higher
    in_force = client.level if now_ms < client.expires_ms else 0
    walk.verdict[RAISED_LEVEL] = level
    return bool(level > in_force)


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
    """Prefetch what the next rows need: a client's state is seldom in a cache. A wrong guess costs only time."""
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
    if client.receipt_count > 0:
        fetch(table.receipts, client.receipt_start + place_of(client.receipt_first, client.receipt_count - 1), 1)
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
