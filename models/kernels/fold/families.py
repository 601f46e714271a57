"""Rings and families: where distinct inputs wait, and what grows around the first near-duplicate."""

import numpy as np

from models.kernels.fold.slots import client_bytes, give_anchors, give_ring, make_room, take_anchors, take_ring
from models.kernels.jit import kernel, part
from models.kernels.layout import (
    ANCHOR_COST,
    ANCHOR_MAX,
    BACKWARD,
    BEFORE_LAST,
    BEST,
    ENTRY_COST,
    FIELD,
    FLIP,
    FORWARD,
    ID_BYTES,
    LAST,
    LAST_ID,
    LEVELLED,
    ORIGIN,
    ORIGIN_ID,
    RECORD,
    REFERENCES,
    RING_MAX,
    RING_SIZES,
    VARIANTS_KNOWN,
    Nulls,
    RowBatch,
    Table,
)
from models.kernels.numbers import NEVER, copy
from models.rows import I64, U8

EVICTION_PER_ROW = 20
"""Evidence (milli-nats) a family loses per row of the client in the contest for a place among its 16."""


@part
def remember(table: Table, slot: int, block: int, capacity: int, batch: RowBatch, row: int) -> None:
    """Put a row that joined nothing into the ring, over the oldest place."""
    client = table.clients[slot]
    if client.ring_next >= client.ring_size and client.ring_size < RING_MAX:
        grow_ring(table, slot, block, capacity)
    place = client.ring_next % RING_MAX
    client.ring_next = place + 1  # RING_MAX wraps to 0 at the next write
    client.ring_mask |= np.uint64(1) << np.uint64(place)
    e = client.ring_start + place
    table.ring[e].exact = batch.exact[row]
    table.ring[e].score = batch.score[row]
    table.ring[e].label = batch.output[row]
    copy(table.ring_values[e], batch.values[row])
    copy(table.ring_fields[e], batch.fields[row])
    start = batch.id_offsets[row]
    length = min(ID_BYTES, batch.id_offsets[row + 1] - start)
    table.ring[e].id_length = length
    write_id(table.ring_ids[e], batch.id_bytes, start, length)


@part
def write_id(place: U8, letters: U8, start: int, length: int) -> None:
    """A request id into its place, zeros behind it."""
    for i in range(length):
        place[i] = letters[start + i]
    for i in range(length, len(place)):
        place[i] = 0


@kernel
def grow_ring(table: Table, slot: int, block: int, capacity: int) -> None:
    """1 -> 4 -> 12 -> 32 -> 64 entries; the places keep their numbers."""
    client = table.clients[slot]
    size = RING_MAX
    for larger in RING_SIZES[::-1]:
        if larger > client.ring_size:
            size = larger
    make_room(table, block, table.costs[ENTRY_COST] * (size - client.ring_size), capacity, slot)
    start = take_ring(table, size)
    for i in range(client.ring_size):
        table.ring[start + i] = table.ring[client.ring_start + i]
        copy(table.ring_values[start + i], table.ring_values[client.ring_start + i])
        copy(table.ring_fields[start + i], table.ring_fields[client.ring_start + i])
        copy(table.ring_ids[start + i], table.ring_ids[client.ring_start + i])
    if client.ring_size > 0:
        give_ring(table, client.ring_start, client.ring_size)
    table.block_bytes[block] += table.costs[ENTRY_COST] * (size - client.ring_size)
    client.ring_start, client.ring_size = start, size


@kernel
def copy_anchor(table: Table, source: int, target: int) -> None:
    table.anchors[target] = table.anchors[source]
    for z in range(REFERENCES):
        copy(table.anchor_values[target, z], table.anchor_values[source, z])
        copy(table.anchor_fields[target, z], table.anchor_fields[source, z])
    copy(table.anchor_exact[target], table.anchor_exact[source])
    for z in range(2):
        copy(table.anchor_ids[target, z], table.anchor_ids[source, z])
    copy(table.wealth[target], table.wealth[source])
    for p in range(table.parts.shape[1]):
        copy(table.parts[target, p], table.parts[source, p])
    copy(table.seen[target], table.seen[source])
    copy(table.changed[target], table.changed[source])


@kernel
def grow_anchors(table: Table, slot: int, block: int, capacity: int) -> None:
    """0 -> 2 -> 16 families."""
    client = table.clients[slot]
    size = 2 if client.anchor_size == 0 else ANCHOR_MAX
    make_room(table, block, table.costs[ANCHOR_COST] * (size - client.anchor_size), capacity, slot)
    start = take_anchors(table, size)
    for i in range(client.anchor_count):
        copy_anchor(table, client.anchor_start + i, start + i)
    if client.anchor_size > 0:
        give_anchors(table, client.anchor_start, client.anchor_size)
    table.block_bytes[block] += table.costs[ANCHOR_COST] * (size - client.anchor_size)
    client.anchor_start, client.anchor_size = start, size


@kernel
def weakest(table: Table, slot: int) -> int:
    """Index of the family that gives way: least evidence, less 20 milli-nats for every row since it was touched."""
    client = table.clients[slot]
    chosen, least = 0, np.int64(1) << 60
    for i in range(client.anchor_count):
        a = client.anchor_start + i
        most = np.int64(NEVER)
        for p in range(table.wealth.shape[1]):
            most = max(most, np.int64(table.wealth[a, p]))
        worth = most - EVICTION_PER_ROW * (client.rows - table.anchors[a].touched_row)
        if worth < least:
            chosen, least = i, worth
    return chosen


@kernel
def promote(table: Table, nulls: Nulls, slot: int, block: int, capacity: int, place: int) -> int:
    """Make a ring entry the origin of a new family and take it out of the ring; returns the anchor.

    Left in the ring it would compete with its own family, and every variant would found another one.
    """
    client = table.clients[slot]
    if client.anchor_count == client.anchor_size and client.anchor_size < ANCHOR_MAX:
        grow_anchors(table, slot, block, capacity)
    if client.anchor_count < client.anchor_size:
        a = client.anchor_start + client.anchor_count
        client.anchor_count += 1
    else:
        a = client.anchor_start + weakest(table, slot)
    e = client.ring_start + place
    client.ring_mask &= ~(np.uint64(1) << np.uint64(place))
    entry = table.ring[e]
    for z in range(REFERENCES):
        copy(table.anchor_values[a, z], table.ring_values[e])
        copy(table.anchor_fields[a, z], table.ring_fields[e])
        table.anchor_exact[a, z] = entry.exact
    for known in range(REFERENCES, REFERENCES + VARIANTS_KNOWN):
        table.anchor_exact[a, known] = 0
    copy(table.anchor_ids[a, ORIGIN_ID], table.ring_ids[e])
    copy(table.anchor_ids[a, LAST_ID], table.ring_ids[e])
    family = table.anchors[a]
    family.mask, family.step2, family.touched_row = 0, 0, client.rows
    family.first_ms = family.last_ms = client.clock_ms
    family.variants = family.flips = 0
    family.label = family.label_a = entry.label
    family.label_b = 0
    family.rows_a, family.rows_b, family.rows_other = 1, 0, 0
    family.score = family.best_score = family.back_score = entry.score
    family.direction = np.float32(-1.0) if entry.score > np.float32(nulls.decision_threshold) else np.float32(1.0)
    table.wealth[a] = NEVER
    table.parts[a] = 0
    table.changed[a] = 0
    for i in range(table.seen.shape[1]):
        table.seen[a, i] = value_bit(table.ring_fields[e, i])
    return int(a)


@part
def value_bit(field: int) -> np.uint64:
    """One of 64 bits for a field's value; the number of set bits estimates the number of values (linear counting)."""
    return np.uint64(1) << (np.uint64(field) & np.uint64(63))


@part
def extend(
    table: Table, slot: int, anchor: int, batch: RowBatch, row: int, levels: I64, mask: np.uint64, step2: int
) -> None:
    """Make a variant the last member of its family."""
    client = table.clients[slot]
    family = table.anchors[anchor]
    table.anchor_exact[anchor, REFERENCES + family.variants % VARIANTS_KNOWN] = batch.exact[row]
    family.variants += 1
    family.touched_row = client.rows
    family.last_ms = client.clock_ms
    family.mask = mask
    family.step2 = step2
    family.flips += levels[FLIP] == 1
    count_label(table, anchor, batch.output[row])
    copy(table.anchor_values[anchor, BEFORE_LAST], table.anchor_values[anchor, LAST])
    put(table, anchor, LAST, batch, row)
    if levels[RECORD] == FORWARD:
        family.best_score = batch.score[row]
    if levels[RECORD] == BACKWARD:
        family.back_score = batch.score[row]
    if levels[RECORD] == FORWARD or levels[RECORD] == BACKWARD:
        put(table, anchor, BEST, batch, row)
    family.score = batch.score[row]
    start = batch.id_offsets[row]
    length = min(ID_BYTES, batch.id_offsets[row + 1] - start)
    write_id(table.anchor_ids[anchor, LAST_ID], batch.id_bytes, start, length)
    for i in range(table.seen.shape[1]):
        table.seen[anchor, i] |= value_bit(batch.fields[row, i])
        if batch.fields[row, i] != table.anchor_fields[anchor, ORIGIN, i] and table.changed[anchor, i] < 65_535:
            table.changed[anchor, i] += 1


@part
def put(table: Table, anchor: int, reference: int, batch: RowBatch, row: int) -> None:
    copy(table.anchor_values[anchor, reference], batch.values[row])
    copy(table.anchor_fields[anchor, reference], batch.fields[row])
    table.anchor_exact[anchor, reference] = batch.exact[row]


@part
def count_label(table: Table, anchor: int, label: int) -> None:
    family = table.anchors[anchor]
    if label != 0:
        family.label = label
    if label == family.label_a:
        family.rows_a += 1
    elif family.label_b == 0 or label == family.label_b:
        family.label_b = label
        family.rows_b += 1
    else:
        family.rows_other += 1


@kernel
def forget_old(table: Table, slot: int, block: int, oldest_ms: int) -> None:
    """Drop families that nothing joined since `oldest_ms`; the others keep their order."""
    client = table.clients[slot]
    kept = 0
    for i in range(client.anchor_count):
        a = client.anchor_start + i
        if table.anchors[a].last_ms >= oldest_ms:
            if kept != i:
                copy_anchor(table, a, client.anchor_start + kept)
            kept += 1
    client.anchor_count = kept
    if kept == 0 and client.anchor_size > 0:
        before = client_bytes(table, slot)
        give_anchors(table, client.anchor_start, client.anchor_size)
        client.anchor_start = client.anchor_size = 0
        table.block_bytes[block] += client_bytes(table, slot) - before


@part
def level_counts(counts: I64, field_counts: I64, levels: I64) -> None:
    """Count one variant's feature levels; counts : (LEVELLED, LEVELS), field_counts : (f + 1,)."""
    for j in range(LEVELLED):
        counts[j, levels[j]] += 1
    field_counts[levels[FIELD]] += 1
