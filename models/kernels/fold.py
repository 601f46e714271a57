"""The walk of one frame's rows through the client table: start reading here.

row -> client -> clock and decay -> repeat? -> evidence of the client -> variant of what? -> evidence of the family
    -> one statistic -> over a threshold?
"""

import numpy as np

from models.kernels.families import extend, forget_old, level_counts, promote, remember
from models.kernels.jit import kernel
from models.kernels.layout import (
    ANCHOR_BUMP,
    ANCHOR_MAX,
    CLIENT_BUMP,
    CLIENT_FREE,
    CROSSED,
    DONE,
    GROW,
    LEAD_ANCHOR,
    LEAD_PROCESS,
    RAISED_LEVEL,
    RING_BUMP,
    RING_MAX,
    SKIPPED,
    SLOT,
    STATISTIC,
    Batch,
    Nulls,
    Table,
    Tally,
)
from models.kernels.match import describe, is_repeat, join
from models.kernels.numbers import CEILING, COUNT_CEILING, NEVER, size_bucket, softplus, variant_bucket
from models.kernels.slots import find, insert, make_room
from models.rows import I32, I64

DAY_MS = 86_400_000
HALF_LIFE_MS = 7 * DAY_MS
FORGET_MS = 30 * DAY_MS
LN2_MICRO = 693_147  # ln 2 in 1e-6; 1,000 of these are one milli-nat
SUM_FLOOR = 500
"""What each family must exceed (milli-nats) to count in a sum over families."""
OFF = np.int64(-1) << 60


@kernel
def fold(
    table: Table, nulls: Nulls, batch: Batch, closed: I64, capacity: int, start: int, tally: Tally, verdict: I64
) -> tuple[int, int]:
    """Apply rows from `start` on; returns (next row, DONE | GROW | CROSSED).

    closed : (blocks,) 1 where this frame lies below the block's own mark. GROW: the arrays need room before row
    `next` can be applied. CROSSED: row `next - 1` crossed a threshold, `verdict` says how; decide, then go on.
    """
    blocks = len(table.block_head)
    levels = np.zeros(8, np.int64)
    evidence = np.zeros(nulls.tail.shape[1], np.int32)
    anchors = np.zeros(nulls.tail.shape[1], np.int32)
    for row in range(start, len(batch.client)):
        if not has_room(table):
            return row, GROW
        key = batch.client[row]
        block = int(key % np.uint64(blocks))
        if closed[block] or not advances(table, block, batch, row):
            table.heads[SKIPPED] += 1
            continue
        slot = find(table, key)
        if slot < 0:
            make_room(table, block, table.costs[0], capacity, -1)
            slot = insert(table, key, block)
        if apply(table, nulls, slot, block, capacity, batch, row, levels, evidence, anchors, tally, verdict):
            return row + 1, CROSSED
    return len(batch.client), DONE


@kernel
def has_room(table: Table) -> bool:
    """One row takes at most one client, one larger ring and one larger page of anchors."""
    free = table.heads[CLIENT_FREE] >= 0 or table.heads[CLIENT_BUMP] < len(table.clients)
    rings = table.heads[RING_BUMP] + RING_MAX <= len(table.ring)
    anchors = table.heads[ANCHOR_BUMP] + ANCHOR_MAX <= len(table.anchors)
    return bool(free and rings and anchors)


@kernel
def advances(table: Table, block: int, batch: Batch, row: int) -> bool:
    """True, moving the mark, if a row lies beyond what its block has applied from this source."""
    offset, item = batch.offset[row], batch.item[row]
    at, within = table.mark_offset[block, batch.mark], table.mark_index[block, batch.mark]
    if offset < at or (offset == at and item <= within):
        return False
    table.mark_offset[block, batch.mark] = offset
    table.mark_index[block, batch.mark] = item
    return True


@kernel
def apply(
    table: Table,
    nulls: Nulls,
    slot: int,
    block: int,
    capacity: int,
    batch: Batch,
    row: int,
    levels: I64,
    evidence: I32,
    anchors: I32,
    tally: Tally,
    verdict: I64,
) -> bool:
    """One row of one client; True if it calls for a decision."""
    client = table.clients[slot]
    klass = min(2, int(batch.klass[row]))
    tick(table, slot, block, batch.time_ms[row])
    if is_repeat(table, slot, batch.exact[row]):
        client.repeats += 1
        if len(tally.statistic) > 0:
            statistic = weigh(table, nulls, slot, klass, evidence, anchors, verdict)
            tally.evidence[row] = evidence
            tally.statistic[row] = statistic
        return False
    bet_on_client(table, nulls, slot, klass, batch, row)
    candidate = join(table, nulls, slot, batch, row)
    if candidate < 0:
        remember(table, slot, block, capacity, batch, row)
    else:
        if candidate < RING_MAX:
            anchor = promote(table, nulls, slot, block, capacity, candidate)
        else:
            anchor = client.anchor_start + (candidate - RING_MAX) // 3
        bet_on_family(table, nulls, slot, anchor, klass, batch, row, levels, tally)
    statistic = weigh(table, nulls, slot, klass, evidence, anchors, verdict)
    before = client.statistic
    client.statistic = max(statistic, NEVER)
    if len(tally.statistic) > 0:
        tally.evidence[row] = evidence
        tally.statistic[row] = client.statistic
    risen = client.statistic > before or evidence[verdict[LEAD_PROCESS]] >= CEILING  # there it cannot rise any more
    return risen and calls_for_decision(table, nulls, slot, klass, verdict)


@kernel
def tick(table: Table, slot: int, block: int, time_ms: int) -> None:
    """Move the client's own clock, which never goes back; let old evidence fade and the day turn."""
    client = table.clients[slot]
    if client.rows == 0:
        client.clock_ms = client.decay_from_ms = time_ms
        client.day = time_ms // DAY_MS
    client.clock_ms = max(client.clock_ms, time_ms)
    faded = ((client.clock_ms - client.decay_from_ms) * LN2_MICRO) // (HALF_LIFE_MS * 1000)
    if faded > 0:
        client.decay_from_ms += (faded * HALF_LIFE_MS * 1000) // LN2_MICRO
        client.margin_seek = fade(client.margin_seek, faded)
        client.offgrid = fade(client.offgrid, faded)
        for a in range(client.anchor_start, client.anchor_start + client.anchor_count):
            for p in range(table.wealth.shape[1]):
                table.wealth[a, p] = fade(table.wealth[a, p], faded)
        forget_old(table, slot, block, client.clock_ms - FORGET_MS)
    day = client.clock_ms // DAY_MS
    if day != client.day:
        client.day = day
        client.rows_today = client.distinct_today = 0
    client.rows += 1
    client.rows_today += 1


@kernel
def fade(evidence: int, faded: int) -> int:
    return int(max(np.int64(NEVER), np.int64(evidence) - faded))


@kernel
def bet(evidence: int, ratio: int) -> int:
    """Shiryaev-Roberts: log M <- log(1 + M) + log e (Pollak 1985), in milli-nats."""
    return int(min(softplus(evidence) + ratio, CEILING))


@kernel
def bet_on_client(table: Table, nulls: Nulls, slot: int, klass: int, batch: Batch, row: int) -> None:
    """Processes of the client itself, on every distinct row: margins, values off their grid, unique inputs."""
    client = table.clients[slot]
    client.distinct += 1
    client.distinct_today += 1
    margin = batch.margin[row]
    if not np.isnan(margin):
        low = 1 if margin < nulls.low_margin[klass] else 0
        client.low_margin_rows += low
        client.margin_seek = bet(client.margin_seek, nulls.margin[klass, low])
    off = 1 if batch.offgrid[row] != 0 else 0
    client.offgrid_rows += off
    client.offgrid_fields |= batch.offgrid[row]
    if len(batch.fields[row]) > 0:
        client.offgrid = bet(client.offgrid, nulls.offgrid[klass, off])


@kernel
def bet_on_family(
    table: Table, nulls: Nulls, slot: int, anchor: int, klass: int, batch: Batch, row: int, levels: I64, tally: Tally
) -> None:
    """One joint outcome per variant and profile, factorised over 8 features."""
    client = table.clients[slot]
    client.variants += 1
    mask, step2 = describe(table, nulls, anchor, batch, row, levels, klass)
    bucket = variant_bucket(table.anchors[anchor].variants)
    if len(tally.family) > 0:
        level_counts(tally.family[klass, bucket], tally.field[klass], levels)
    for p in range(table.wealth.shape[1]):
        joint = p < nulls.joint
        if joint and table.wealth[anchor, p] < 0:
            table.parts[anchor, p] = 0
        total = 0
        for j in range(8):
            ratio = nulls.field[klass, levels[7], p] if j == 7 else nulls.family[klass, bucket, j, levels[j], p]
            total += ratio
            if joint:
                table.parts[anchor, p, j] += ratio
        table.wealth[anchor, p] = bet(table.wealth[anchor, p], total)
    extend(table, slot, anchor, batch, row, levels, mask, step2)


@kernel
def weigh(table: Table, nulls: Nulls, slot: int, klass: int, evidence: I32, anchors: I32, verdict: I64) -> int:
    """Evidence of every process and their fusion: the largest standardised excess, less what activity explains.

    Order of processes: of families (maximum over families), sums of the joint ones over families, margin seeking,
    off-grid, unique inputs of the day, size of the largest family. Fills evidence and each process's leading family.
    """
    client = table.clients[slot]
    singles, joint = table.wealth.shape[1], nulls.joint
    evidence[:] = NEVER
    anchors[:] = -1
    for p in range(joint):
        evidence[singles + p] = 0
    largest = singles + joint + 3
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
    evidence[singles + joint] = client.margin_seek
    evidence[singles + joint + 1] = client.offgrid
    evidence[singles + joint + 2] = min(COUNT_CEILING, 1000 * int(client.distinct_today))
    most, lead = OFF, 0
    for p in range(len(evidence)):
        if nulls.tail_scale[klass, p] > 0:
            excess = (np.int64(evidence[p]) - nulls.tail[klass, p]) * 1000 // nulls.tail_scale[klass, p]
            if excess > most:
                most, lead = excess, p
    most -= nulls.growth[klass, size_bucket(client.rows_today)]
    verdict[LEAD_PROCESS], verdict[LEAD_ANCHOR] = lead, anchors[lead]
    verdict[STATISTIC], verdict[SLOT] = most, slot
    return int(max(most, np.int64(-2_000_000_000)))


@kernel
def threshold_offset(key: np.uint64) -> int:
    """0 to 0.5, fixed per client and only upwards: two accounts cannot measure one threshold."""
    return int((key >> np.uint64(17)) % np.uint64(501))


@kernel
def calls_for_decision(table: Table, nulls: Nulls, slot: int, klass: int, verdict: I64) -> bool:
    """A higher rung than the one in force; after expiry, any rung again. Asked when evidence has risen."""
    client = table.clients[slot]
    if client.clock_ms < client.quiet_until_ms:
        return False
    offset = threshold_offset(client.key)
    level = 0
    for rung in range(1, 5):
        if client.statistic >= nulls.thresholds[klass, rung] + offset:
            level = rung
    in_force = client.level if client.clock_ms < client.expires_ms else 0
    verdict[RAISED_LEVEL] = level
    return bool(level > in_force)
