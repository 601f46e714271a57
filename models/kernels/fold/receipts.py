"""Receipts of a client's latest rows: what is delivered again is not done again.

Gateways and shippers deliver at least once, so one request may stand in the log at several offsets. A row is known
again by its time and its input. The 256 latest receipts are kept in order of time; what is no later than one that was
given up counts as known again, for a whole page of later rows has been applied since.
"""

import numpy as np

from models.kernels.fold.slots import give_receipts, make_room, take_receipts
from models.kernels.jit import kernel, part
from models.kernels.layout import RECEIPT_COST, RECEIPT_MAX, RECEIPT_SIZES, RowBatch, Table
from models.rows import UNTIMED_MS

LOW_HALF = np.uint64(0xFFFF_FFFF)


@part
def place_of(first: int, number: int) -> int:
    """Where in a client's page its receipt of a number stands, the earliest being 0. Only full pages go round."""
    return (first + number) % RECEIPT_MAX


@part
def is_delivered_again(table: Table, slot: int, batch: RowBatch, row: int) -> bool:
    """True for a row that the client's clock has reached before and that has a receipt, or whose receipt is given up.

    More rows may bear the client's present time than a page holds, in one record that lists many inputs: rows of the
    record that is being applied are new. What has no time is known by its receipt alone.
    """
    client, time_ms = table.clients[slot], batch.time_ms[row]
    if client.rows == 0 or time_ms > client.clock_ms:
        return False
    exact = batch.exact[row] & LOW_HALF
    for number in range(client.receipt_count - 1, -1, -1):
        receipt = table.receipts[client.receipt_start + place_of(client.receipt_first, number)]
        if receipt.time_ms < time_ms:
            break
        if receipt.time_ms == time_ms and receipt.exact == exact:
            return True
    if time_ms > client.forgotten_ms or time_ms == UNTIMED_MS:
        return False
    same_record = client.record_offset == batch.offset[row] and client.record_source == batch.source[row]
    return bool(time_ms < client.clock_ms or not same_record)


@part
def receive(table: Table, slot: int, block: int, capacity: int, batch: RowBatch, row: int) -> None:
    """Keep the receipt of a row that is new, in order of time; of a full page the earliest one is given up."""
    client, time_ms = table.clients[slot], batch.time_ms[row]
    client.record_source, client.record_offset = batch.source[row], batch.offset[row]
    if client.receipt_count == client.receipt_size and client.receipt_size < RECEIPT_MAX:
        grow_receipts(table, slot, block, capacity)
    start = client.receipt_start
    if client.receipt_count == RECEIPT_MAX:
        earliest_ms = table.receipts[start + client.receipt_first].time_ms
        client.forgotten_ms = max(client.forgotten_ms, min(earliest_ms, time_ms))
        if time_ms <= earliest_ms:
            return
        client.receipt_first = place_of(client.receipt_first, 1)
        client.receipt_count -= 1
    at = client.receipt_count
    while at > 0:
        before = start + place_of(client.receipt_first, at - 1)
        if table.receipts[before].time_ms <= time_ms:
            break
        table.receipts[start + place_of(client.receipt_first, at)] = table.receipts[before]
        at -= 1
    receipt = table.receipts[start + place_of(client.receipt_first, at)]
    receipt.time_ms, receipt.exact = time_ms, batch.exact[row] & LOW_HALF
    client.receipt_count += 1


@kernel
def grow_receipts(table: Table, slot: int, block: int, capacity: int) -> None:
    """0 -> 4 -> 16 -> 64 -> 256 receipts; they keep their places."""
    client = table.clients[slot]
    size = RECEIPT_MAX
    for larger in RECEIPT_SIZES[::-1]:
        if larger > client.receipt_size:
            size = larger
    need = table.costs[RECEIPT_COST] * (size - client.receipt_size)
    make_room(table, block, need, capacity, slot)
    start = take_receipts(table, size)
    for i in range(client.receipt_size):
        table.receipts[start + i] = table.receipts[client.receipt_start + i]
    if client.receipt_size > 0:
        give_receipts(table, client.receipt_start, client.receipt_size)
    table.block_bytes[block] += need
    client.receipt_start, client.receipt_size = start, size
