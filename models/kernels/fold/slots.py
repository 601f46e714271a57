"""Where a client lives: index, blocks, pages, and who leaves when a block is full."""

import numpy as np
from numpy.typing import NDArray

from models.kernels import layout
from models.kernels.jit import kernel, part
from models.kernels.layout import (
    ANCHOR_BUMP,
    ANCHOR_COST,
    ANCHOR_FREE,
    CLIENT_BUMP,
    CLIENT_COST,
    CLIENT_FREE,
    CLIENTS,
    ENTRY_COST,
    EVICTED,
    PAGE_BUMP,
    PAGE_COST,
    PAGE_FREE,
    RECEIPT_BUMP,
    RECEIPT_COST,
    RECEIPT_FREE,
    RECEIPT_SIZES,
    RING_BUMP,
    RING_FREE,
    Table,
)
from models.kernels.numbers import NEVER, mix64
from models.rows import I32, I64, TIME_MS_MIN

block_of = part(layout.block_of)

SPARE = 64
"""A full block is brought down by this part of its capacity."""
NOTHING_FORGOTTEN = TIME_MS_MIN - 1
"""`forgotten_ms` of a client that has its receipts all."""


@kernel
def find(table: Table, key: np.uint64) -> int:
    """Slot of a client, or -1."""
    mask = np.uint64(len(table.places) - 1)
    at = mix64(key) & mask
    while table.places[at] >= 0:
        slot = table.places[at]
        if table.clients[slot].key == key:
            return int(slot)
        at = (at + np.uint64(1)) & mask
    return -1


@kernel
def index_slot(table: Table, slot: int) -> None:
    mask = np.uint64(len(table.places) - 1)
    at = mix64(table.clients[slot].key) & mask
    while table.places[at] >= 0:
        at = (at + np.uint64(1)) & mask
    table.places[at] = slot


@kernel
def unindex(table: Table, key: np.uint64) -> None:
    """Remove by shifting later entries back (Knuth 6.4, algorithm R): no tombstones, so look-ups stay short."""
    mask = np.uint64(len(table.places) - 1)
    hole = mix64(key) & mask
    while table.clients[table.places[hole]].key != key:
        hole = (hole + np.uint64(1)) & mask
    at = hole
    while True:
        at = (at + np.uint64(1)) & mask
        slot = table.places[at]
        if slot < 0:
            break
        home = mix64(table.clients[slot].key) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.places[hole] = slot
            hole = at
    table.places[hole] = -1


@kernel
def size_class(size: int) -> int:
    """Free list of a page size: rings of 1, 4, 12, 32, 64 are 0 to 4; anchors of 2, 16 are 0, 1."""
    if size <= 2:
        return 0
    if size <= 4 or size == 16:
        return 1
    if size == 12:
        return 2
    return 3 if size == 32 else 4


@kernel
def take_ring(table: Table, size: int) -> int:
    free = RING_FREE + size_class(size)
    start = table.heads[free]
    if start >= 0:
        table.heads[free] = table.ring[start].link
        return int(start)
    start = table.heads[RING_BUMP]
    table.heads[RING_BUMP] = start + size
    return int(start)


@kernel
def give_ring(table: Table, start: int, size: int) -> None:
    free = RING_FREE + size_class(size)
    table.ring[start].link = table.heads[free]
    table.heads[free] = start


@kernel
def take_anchors(table: Table, size: int) -> int:
    free = ANCHOR_FREE + size_class(size)
    start = table.heads[free]
    if start >= 0:
        table.heads[free] = table.anchors[start].link
        return int(start)
    start = table.heads[ANCHOR_BUMP]
    table.heads[ANCHOR_BUMP] = start + size
    return int(start)


@kernel
def give_anchors(table: Table, start: int, size: int) -> None:
    free = ANCHOR_FREE + size_class(size)
    table.anchors[start].link = table.heads[free]
    table.heads[free] = start


@kernel
def take_page(table: Table) -> int:
    start = table.heads[PAGE_FREE]
    if start >= 0:
        table.heads[PAGE_FREE] = table.pages[start].link
        return int(start)
    start = table.heads[PAGE_BUMP]
    table.heads[PAGE_BUMP] = start + 1
    return int(start)


@kernel
def give_page(table: Table, start: int) -> None:
    table.pages[start].link = table.heads[PAGE_FREE]
    table.heads[PAGE_FREE] = start


@kernel
def free_receipts(size: int) -> int:
    """The head of the free list of a page size."""
    free = RECEIPT_FREE
    while size > RECEIPT_SIZES[0]:
        size >>= 2
        free += 1
    return free


@kernel
def take_receipts(table: Table, size: int) -> int:
    free = free_receipts(size)
    start = table.heads[free]
    if start >= 0:
        table.heads[free] = table.receipts[start].time_ms
        return int(start)
    start = table.heads[RECEIPT_BUMP]
    table.heads[RECEIPT_BUMP] = start + size
    return int(start)


@kernel
def give_receipts(table: Table, start: int, size: int) -> None:
    free = free_receipts(size)
    table.receipts[start].time_ms = table.heads[free]
    table.heads[free] = start


@kernel
def client_bytes(table: Table, slot: int) -> int:
    client = table.clients[slot]
    ring = table.costs[ENTRY_COST] * np.int64(client.ring_size)
    anchors = table.costs[ANCHOR_COST] * np.int64(client.anchor_size)
    page = table.costs[PAGE_COST] if client.page >= 0 else np.int64(0)
    return int(table.costs[CLIENT_COST] + ring + anchors + page + table.costs[RECEIPT_COST] * client.receipt_size)


@kernel
def unlink(table: Table, slot: int, block: int) -> None:
    client = table.clients[slot]
    if client.previous >= 0:
        table.clients[client.previous].next = client.next
    else:
        table.block_head[block] = client.next
    if client.next >= 0:
        table.clients[client.next].previous = client.previous


@kernel
def remove(table: Table, slot: int, block: int) -> None:
    """Forget a client: its pages go back, its slot is free."""
    client = table.clients[slot]
    table.block_bytes[block] -= client_bytes(table, slot)
    if client.ring_size > 0:
        give_ring(table, client.ring_start, client.ring_size)
    if client.anchor_size > 0:
        give_anchors(table, client.anchor_start, client.anchor_size)
    if client.page >= 0:
        give_page(table, client.page)
    if client.receipt_size > 0:
        give_receipts(table, client.receipt_start, client.receipt_size)
    unindex(table, client.key)
    unlink(table, slot, block)
    table.clients[slot].next = table.heads[CLIENT_FREE]
    table.heads[CLIENT_FREE] = slot
    table.heads[CLIENTS] -= 1


@kernel
def make_room(table: Table, block: int, need: int, capacity: int, keep: int) -> None:
    """If `need` more bytes do not fit, the least evident, then longest silent clients leave until there is some.

    More than needed, since each look goes through the whole block: whoever invents clients would make each cost that.
    Deterministic: by (statistic, clock, key). `keep` is the client being served; it never leaves.
    """
    if table.block_bytes[block] + need <= capacity:
        return
    enough = capacity - capacity // SPARE
    while table.block_bytes[block] + need > enough:
        count = choose_leaving(table, block, keep)
        if count == 0:
            return
        for i in range(count):
            if table.block_bytes[block] + need > enough:
                remove(table, table.leaving[i], block)
                table.heads[EVICTED] += 1


@kernel
def choose_leaving(table: Table, block: int, keep: int) -> int:
    """The first of those to leave, in order, in `table.leaving`; how many they are.

    A heap with the last of them on top, sorted in place at the end: whoever invents clients chooses their order too.
    """
    leaving, count = table.leaving, 0
    slot = table.block_head[block]
    while slot >= 0:
        if slot != keep and count < len(leaving):
            leaving[count] = slot
            count += 1
            if count == len(leaving):
                for at in range(count // 2 - 1, -1, -1):
                    sift_down(table, at, count)
        elif slot != keep and leaves_before(table, slot, leaving[0]):
            leaving[0] = slot
            sift_down(table, 0, count)
        slot = table.clients[slot].next
    if count < len(leaving):
        for at in range(count // 2 - 1, -1, -1):
            sift_down(table, at, count)
    for last in range(count - 1, 0, -1):
        leaving[0], leaving[last] = leaving[last], leaving[0]
        sift_down(table, 0, last)
    return count


@kernel
def sift_down(table: Table, at: int, count: int) -> None:
    """Bring entry `at` of the heap to where nobody below leaves after it (Williams, 1964)."""
    leaving = table.leaving
    while 2 * at + 1 < count:
        below = 2 * at + 1
        if below + 1 < count and leaves_before(table, leaving[below], leaving[below + 1]):
            below += 1
        if leaves_before(table, leaving[below], leaving[at]):
            return
        leaving[at], leaving[below] = leaving[below], leaving[at]
        at = below


@kernel
def leaves_before(table: Table, slot: int, other: int) -> bool:
    a, b = table.clients[slot], table.clients[other]
    if a.statistic != b.statistic:
        return bool(a.statistic < b.statistic)
    if a.clock_ms != b.clock_ms:
        return bool(a.clock_ms < b.clock_ms)
    return bool(a.key < b.key)


@kernel
def insert(table: Table, key: np.uint64, block: int) -> int:
    """A new, empty client at the head of its block. The caller has made room and grown the arrays."""
    slot = table.heads[CLIENT_FREE]
    if slot >= 0:
        table.heads[CLIENT_FREE] = table.clients[slot].next
    else:
        slot = table.heads[CLIENT_BUMP]
        table.heads[CLIENT_BUMP] = slot + 1
    client = table.clients[slot]
    client.key = key
    client.ring_mask = client.cells = 0
    client.gap_ms = -1
    client.minute = client.tokens_today = 0
    client.clock_ms = client.decay_from_ms = client.expires_ms = client.decided_ms = client.quiet_until_ms = 0
    client.incident_offset = client.rows = client.distinct = 0
    client.day = client.rows_today = client.distinct_today = client.explained_today = client.rows_minute = 0
    client.repeats = client.variants = client.offgrid_rows = client.low_margin_rows = 0
    client.member_rows = client.explained_rows = client.unreadable_rows = client.unjudged_rows = 0
    client.offgrid_fields = client.incident_source = client.incident_index = 0
    client.ring_start = client.ring_size = client.ring_next = 0
    client.anchor_start = client.anchor_size = client.anchor_count = 0
    client.page = -1
    client.receipt_start = client.receipt_size = client.receipt_first = client.receipt_count = 0
    client.forgotten_ms = NOTHING_FORGOTTEN
    client.record_source, client.record_offset = 0, -1
    client.statistic = NEVER
    table.bets[slot] = NEVER
    client.level = client.revision = client.doublings = client.alerts = 0
    link_first(table, slot, block)
    index_slot(table, slot)
    table.block_bytes[block] += table.costs[CLIENT_COST]
    table.heads[CLIENTS] += 1
    return int(slot)


@kernel
def link_first(table: Table, slot: int, block: int) -> None:
    first = table.block_head[block]
    table.clients[slot].previous = -1
    table.clients[slot].next = first
    if first >= 0:
        table.clients[first].previous = slot
    table.block_head[block] = slot


@kernel
def reindex(table: Table, old: I32) -> None:
    """Enter all clients of a smaller index into a fresh one."""
    for at in range(len(old)):
        if old[at] >= 0:
            index_slot(table, old[at])


@kernel
def entries_of(
    table: Table, slots: I64, ring: I64, anchors: I64, pages: I64, receipts: I64
) -> tuple[int, int, int, int]:
    """List the valid ring entries, families, pages and receipts of clients, in order; returns how many of each.

    ring, anchors, pages, receipts : long enough for all of them, filled with positions in the pools.
    """
    n_ring = n_anchors = n_pages = n_receipts = 0
    for slot in slots:
        client = table.clients[slot]
        for i in range(client.ring_size):
            if (client.ring_mask >> np.uint64(i)) & np.uint64(1):
                ring[n_ring] = client.ring_start + i
                n_ring += 1
        for i in range(client.anchor_count):
            anchors[n_anchors] = client.anchor_start + i
            n_anchors += 1
        if client.page >= 0:
            pages[n_pages] = client.page
            n_pages += 1
        for i in range(client.receipt_count):
            receipts[n_receipts] = client.receipt_start + i
            n_receipts += 1
    return n_ring, n_anchors, n_pages, n_receipts


@kernel
def restore(table: Table, records: NDArray[np.void], slots: I64) -> None:
    """Insert saved clients with fresh pages of the saved sizes; fills the slot of each record.

    The pages' contents follow, in the order of `entries_of`.
    """
    blocks = np.uint64(len(table.block_head))
    for i in range(len(records)):
        saved = records[i]
        block = int(block_of(saved.key, blocks))
        slot = insert(table, saved.key, block)
        following, previous = table.clients[slot].next, table.clients[slot].previous
        table.clients[slot] = saved
        client = table.clients[slot]
        client.next, client.previous = following, previous
        client.ring_start = take_ring(table, client.ring_size) if client.ring_size > 0 else 0
        client.anchor_start = take_anchors(table, client.anchor_size) if client.anchor_size > 0 else 0
        client.page = take_page(table) if client.page >= 0 else -1
        client.receipt_start = take_receipts(table, client.receipt_size) if client.receipt_size > 0 else 0
        table.block_bytes[block] += client_bytes(table, slot) - table.costs[CLIENT_COST]
        slots[i] = slot


@kernel
def block_slots(table: Table, block: int, slots: I64) -> int:
    """Fill the slots of a block's clients; returns how many there are, filled or not."""
    count = 0
    slot = table.block_head[block]
    while slot >= 0:
        if count < len(slots):
            slots[count] = slot
        count += 1
        slot = table.clients[slot].next
    return count


@kernel
def clear_block(table: Table, block: int) -> None:
    """Forget all clients of a block."""
    while table.block_head[block] >= 0:
        remove(table, table.block_head[block], block)
