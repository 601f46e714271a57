"""ClientTable: everything remembered about the clients of one partition and space, in flat arrays."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.fold.client import FINE_BITS
from models.kernels.fold.fold import fold
from models.kernels.fold.slots import block_slots, clear_block, entries_of, find, reindex, restore
from models.kernels.layout import (
    ANCHOR,
    ANCHOR_BUMP,
    ANCHOR_FREE,
    ANCHOR_MAX,
    ANCHOR_SIZES,
    BACK,
    BUCKETS,
    CLIENT,
    CLIENT_BUMP,
    CLIENT_FREE,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    CLIENTS,
    ENTRY,
    EVICTED,
    FEATURES,
    GROW,
    HEADS,
    ID_BYTES,
    LEAVING,
    LEVELLED,
    LEVELS,
    PAGE,
    PAGE_BUMP,
    PAGE_FREE,
    RECEIPT,
    RECEIPT_BUMP,
    RECEIPT_FREE,
    RECEIPT_MAX,
    RECEIPT_SIZES,
    REDELIVERED,
    REFERENCES,
    RING_BUMP,
    RING_FREE,
    RING_MAX,
    RING_SIZES,
    SKIPPED,
    VARIANTS_KNOWN,
    Nulls,
    RowBatch,
    Scratch,
    Table,
    Tally,
    Walk,
    lanes,
)
from models.kernels.numbers import NEVER
from models.muted import MASKS, OFFGRID, processes_fed
from models.muted import without as without_news
from models.rows import I32, I64, U32, Rows
from models.validate import check_clients, check_entries

MOVED_MAX = 1 << 22
"""A forged frame could otherwise move averages out of their 32 bits."""

_SPEAKING = (
    "offgrid_rows", "offgrid_fields", "low_margin_rows", "member_rows", "explained_rows", "unreadable_rows",
    "unjudged_rows",
)  # fmt: skip
"""Counts that speak against a client."""
_CLIENT_COLUMNS = ("clients", "bets")
_RING_COLUMNS = ("ring", "ring_values", "ring_fields", "ring_ids")
_ANCHOR_COLUMNS = (
    "anchors", "anchor_values", "anchor_fields", "anchor_exact", "anchor_ids", "wealth", "parts", "seen", "changed",
)  # fmt: skip
_PAGE_COLUMNS = ("pages", "averages")
_RECEIPT_COLUMNS = ("receipts",)
_POOLS = (_RING_COLUMNS, _ANCHOR_COLUMNS, _PAGE_COLUMNS, _RECEIPT_COLUMNS)


def no_tally(fields: int, processes: int) -> Tally:
    """Counting and tracing switched off."""
    return Tally(
        np.zeros((0, BUCKETS, LEVELLED, LEVELS), np.int64),
        np.zeros((0, fields + 1), np.int64),
        np.zeros((0, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int64),
        np.zeros((0, processes), np.int32),
        np.zeros(0, np.int32),
        np.zeros(0, np.int64),
    )


class ClientTable:
    """Clients of one partition and space.

    muted : (blocks, MASKS) what is news about the population and no evidence, models/muted.py.
    dim, fields : lengths of a row's values and fields. processes, joint : of a family. blocks : per partition.
    capacity : bytes a block may hold before its least evident clients leave.
    """

    def __init__(self, dim: int, fields: int, processes: int, joint: int, blocks: int, capacity: int) -> None:
        heads = np.zeros(HEADS, np.int64)
        heads[CLIENT_FREE] = -1
        heads[PAGE_FREE] = -1
        heads[RING_FREE : RING_FREE + len(RING_SIZES)] = -1
        heads[ANCHOR_FREE : ANCHOR_FREE + len(ANCHOR_SIZES)] = -1
        heads[RECEIPT_FREE : RECEIPT_FREE + len(RECEIPT_SIZES)] = -1
        client = CLIENT.itemsize + 4 * len(CLIENT_PROCESSES)
        d, f = lanes(dim), lanes(fields)
        entry = ENTRY.itemsize + 2 * d + 2 * f + ID_BYTES
        anchor = (
            ANCHOR.itemsize
            + 2 * REFERENCES * (d + f)
            + 8 * (REFERENCES + VARIANTS_KNOWN)
            + 2 * ID_BYTES
            + 4 * processes
            + 4 * len(FEATURES) * joint
            + 10 * fields
        )
        page = PAGE.itemsize + 8 * dim
        receipts = RECEIPT_MAX * RECEIPT.itemsize
        self.capacity = max(capacity, client + RING_MAX * entry + ANCHOR_MAX * anchor + page + receipts)
        self.dim, self.fields = dim, fields
        self.sources: list[int] = []
        self.muted = np.zeros((blocks, MASKS), np.uint32)
        self.table = Table(
            clients=np.zeros(16, CLIENT),
            bets=np.zeros((16, len(CLIENT_PROCESSES)), np.int32),
            places=np.full(32, -1, np.int32),
            heads=heads,
            costs=np.array([client, entry, anchor, page, RECEIPT.itemsize], np.int64),
            block_head=np.full(blocks, -1, np.int32),
            block_bytes=np.zeros(blocks, np.int64),
            mark_offset=np.full((blocks, 0), -1, np.int64),
            mark_index=np.full((blocks, 0), -1, np.int64),
            moved=np.zeros((blocks, dim), np.int32),
            ring=np.zeros(64, ENTRY),
            ring_values=np.zeros((64, d), np.int16),
            ring_fields=np.zeros((64, f), np.uint16),
            ring_ids=np.zeros((64, ID_BYTES), np.uint8),
            anchors=np.zeros(32, ANCHOR),
            anchor_values=np.zeros((32, REFERENCES, d), np.int16),
            anchor_fields=np.zeros((32, REFERENCES, f), np.uint16),
            anchor_exact=np.zeros((32, REFERENCES + VARIANTS_KNOWN), np.uint64),
            anchor_ids=np.zeros((32, 2, ID_BYTES), np.uint8),
            wealth=np.zeros((32, processes), np.int32),
            parts=np.zeros((32, joint, len(FEATURES)), np.int32),
            seen=np.zeros((32, fields), np.uint64),
            changed=np.zeros((32, fields), np.uint16),
            pages=np.zeros(16, PAGE),
            averages=np.zeros((16, 2, dim), np.int32),
            receipts=np.zeros(RECEIPT_MAX, RECEIPT),
            leaving=np.zeros(LEAVING, np.int32),
        )

    @property
    def count(self) -> int:
        return int(self.table.heads[CLIENTS])

    @property
    def evicted(self) -> int:
        return int(self.table.heads[EVICTED])

    @property
    def skipped(self) -> int:
        return int(self.table.heads[SKIPPED])

    @property
    def redelivered(self) -> int:
        """Rows known again by time and input, at positions that were new."""
        return int(self.table.heads[REDELIVERED])

    @property
    def back(self) -> int:
        """Rows more than a minute before the latest time of their client, since the table was made."""
        return int(self.table.heads[BACK])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.table)

    def find(self, key: int) -> int:
        """Slot of a client, -1 if unknown."""
        return int(find(self.table, np.uint64(key)))

    def batch(self, rows: Rows) -> RowBatch:
        """The columns the fold reads, without what is news about the population."""
        rows, quiet = without_news(rows, self.muted)
        return RowBatch(
            rows.source, rows.offset, rows.index, rows.client, rows.client_class, rows.time_ms,
            rows.id_offsets, rows.id_bytes, rows.exact,
            _in_lanes(rows.values), _in_lanes(rows.fields), _in_lanes(rows.surprisal), rows.offgrid, rows.output,
            rows.score, rows.margin, rows.novelty, rows.cell, rows.tokens_in, rows.tokens_out, rows.flags,
            rows.append_ms, self._marks(rows.source), quiet,
        )  # fmt: skip

    def mute(self, block: int, masks: Sequence[int]) -> bool:
        """What is news from here on, (3,); the evidence that it fed is forgotten. False if a block knew it all."""
        added = np.array(masks, np.uint32) & ~self.muted[block]
        if not added.any():
            return False
        self.muted[block] |= added
        slots = self._slots(block)
        for place in processes_fed(added):
            self.table.bets[slots, place] = NEVER
        if added[OFFGRID]:
            self.table.clients["offgrid_rows"][slots] = self.table.clients["offgrid_fields"][slots] = 0
        return True

    def _slots(self, block: int) -> I64:
        """Of a block's clients, by key."""
        slots = np.zeros(block_slots(self.table, block, np.zeros(0, np.int64)), np.int64)
        block_slots(self.table, block, slots)
        return slots[np.argsort(self.table.clients["key"][slots], kind="stable")]

    def fold(
        self, nulls: Nulls, batch: RowBatch, closed: I64, start: int, tally: Tally, verdict: I64
    ) -> tuple[int, int]:
        """Apply rows from `start` until one calls for something; returns (next row, DONE or CROSSED and/or MOVED)."""
        processes = nulls.tail.shape[1]
        scratch = Scratch(
            np.zeros(len(FEATURES), np.int64), np.zeros(processes, np.int32), np.zeros(processes, np.int32)
        )
        while True:
            walk = Walk(self.table, nulls, batch, tally, scratch, verdict, self.capacity)
            start, status = fold(walk, closed, start)
            if status != GROW:
                return int(start), int(status)
            self._grow()

    def _marks(self, source: U32) -> I32:
        """(n,) columns of rows' sources; mostly there is one."""
        if len(source) and (source == source[0]).all():
            return np.full(len(source), self._mark(int(source[0])), np.int32)
        distinct, place = np.unique(source, return_inverse=True)
        return np.array([self._mark(one) for one in distinct.tolist()], np.int32)[place]

    def _mark(self, source: int) -> int:
        """Column of a source's marks, added when first met."""
        if source not in self.sources:
            self.sources.append(source)
            none = np.full((len(self.table.block_head), 1), -1, np.int64)
            self.table = self.table._replace(
                mark_offset=np.hstack([self.table.mark_offset, none]),
                mark_index=np.hstack([self.table.mark_index, none]),
            )
        return self.sources.index(source)

    def _grow(
        self,
        clients: int = 1,
        ring: int = RING_MAX,
        anchors: int = ANCHOR_MAX,
        pages: int = 1,
        receipts: int = RECEIPT_MAX,
    ) -> None:
        """Double whatever has no room for this many more."""
        heads, table = self.table.heads, self.table
        grown: dict[str, NDArray[Any]] = {}
        if heads[CLIENT_BUMP] + clients > len(table.clients):
            for name in _CLIENT_COLUMNS:
                grown[name] = _longer(getattr(table, name), int(heads[CLIENT_BUMP]) + clients)
            grown["places"] = np.full(2 * len(grown["clients"]), -1, np.int32)
        if heads[RING_BUMP] + ring > len(table.ring):
            for name in _RING_COLUMNS:
                grown[name] = _longer(getattr(table, name), int(heads[RING_BUMP]) + ring)
        if heads[ANCHOR_BUMP] + anchors > len(table.anchors):
            for name in _ANCHOR_COLUMNS:
                grown[name] = _longer(getattr(table, name), int(heads[ANCHOR_BUMP]) + anchors)
        if heads[PAGE_BUMP] + pages > len(table.pages):
            for name in _PAGE_COLUMNS:
                grown[name] = _longer(getattr(table, name), int(heads[PAGE_BUMP]) + pages)
        if heads[RECEIPT_BUMP] + receipts > len(table.receipts):
            for name in _RECEIPT_COLUMNS:
                grown[name] = _longer(getattr(table, name), int(heads[RECEIPT_BUMP]) + receipts)
        self.table = table._replace(**grown)
        if "places" in grown:
            reindex(self.table, table.places)

    def push(self, block: int, by: I64) -> None:
        """The population has moved by so many value units, (d,), as far as a block knows."""
        moved = self.table.moved[block] + (by.astype(np.int64) << FINE_BITS)
        self.table.moved[block] = np.clip(moved, -MOVED_MAX, MOVED_MAX)

    def forget_evidence(self, slot: int) -> None:
        """Drop what speaks against a client, not what is known of its inputs: a person judged it benign."""
        client = self.table.clients[slot]
        client["statistic"] = self.table.bets[slot] = NEVER
        for count in _SPEAKING:
            client[count] = 0
        families = slice(int(client["anchor_start"]), int(client["anchor_start"]) + int(client["anchor_count"]))
        self.table.wealth[families] = NEVER
        self.table.parts[families] = 0

    def of_block(self, block: int) -> NDArray[Any]:
        """The records of a block's clients, a copy, in no order that counts."""
        return self.table.clients[self._slots(block)]

    def dump(self, block: int) -> dict[str, Any]:
        """One block as plain values: clients by key, their entries in the pools, and the block's marks."""
        table = self.table
        slots = self._slots(block)
        records = table.clients[slots]
        for name in ("next", "previous", "ring_start", "anchor_start", "receipt_start"):
            records[name] = 0
        records["page"] = np.minimum(records["page"], 0)
        saved: dict[str, Any] = {"clients": records.tobytes(), "bets": table.bets[slots].tobytes()}
        for name, places in self._entries(slots):
            column = getattr(table, name)[places]
            if column.dtype.names and "link" in column.dtype.names:
                column["link"] = 0  # of the pool, not of the client: a block is a function of the log alone
            saved[name] = column.tobytes()
        saved["moved"] = table.moved[block].tobytes()
        saved["muted"] = self.muted[block].tobytes()
        marks = zip(self.sources, table.mark_offset[block].tolist(), table.mark_index[block].tolist(), strict=True)
        saved["marks"] = sorted(list(mark) for mark in marks if mark[1] >= 0)
        return saved

    def _entries(self, slots: I64) -> Iterator[tuple[str, I64]]:
        """Columns of the pools, and where in them these clients' entries stand, in order."""
        records = self.table.clients[slots]
        ring = np.zeros(int(records["ring_size"].sum()), np.int64)
        anchors = np.zeros(int(records["anchor_size"].sum()), np.int64)
        pages = np.zeros(len(slots), np.int64)
        receipts = np.zeros(int(records["receipt_size"].sum()), np.int64)
        counts = entries_of(self.table, slots, ring, anchors, pages, receipts)
        for names, places, count in zip(_POOLS, (ring, anchors, pages, receipts), counts, strict=True):
            for name in names:
                yield name, places[:count]

    def clear(self, block: int) -> None:
        """Forget a block's clients, its marks, how far the population has moved and what is news about it."""
        clear_block(self.table, block)
        self.table.moved[block] = self.muted[block] = 0
        self.table.mark_offset[block] = self.table.mark_index[block] = -1

    def load(self, block: int, saved: dict[str, Any]) -> None:
        """Put a dumped block in place of what the block holds now.

        Raises ValueError if its columns do not fit this table, or are such as no fold has written.
        """
        self.clear(block)
        records = np.frombuffer(saved["clients"], CLIENT)
        check_clients(records, block, len(self.table.block_head))
        self._grow(
            len(records), int(records["ring_size"].sum()) + 1, int(records["anchor_size"].sum()) + 1, len(records),
            int(records["receipt_size"].sum()),
        )  # fmt: skip
        slots = np.zeros(len(records), np.int64)
        restore(self.table, records, slots)
        self.table.bets[slots] = np.frombuffer(saved["bets"], np.int32).reshape(len(slots), self.table.bets.shape[1])
        for name, places in self._entries(slots):
            column = getattr(self.table, name)
            column[places] = np.frombuffer(saved[name], column.dtype).reshape(len(places), *column.shape[1:])
            if name in ("anchors", "pages"):
                check_entries(name, column[places])
        self.table.moved[block] = np.frombuffer(saved["moved"], np.int32)
        self.muted[block] = np.frombuffer(saved["muted"], np.uint32).reshape(MASKS)
        for source, offset, index in saved["marks"]:
            mark = self._mark(source)
            self.table.mark_offset[block, mark] = offset
            self.table.mark_index[block, mark] = index


def without(saved: dict[str, Any], keys: Collection[int]) -> dict[str, Any]:
    """A dumped block without some clients, their records and their entries. Raises ValueError for what is none."""
    records = np.frombuffer(saved["clients"], CLIENT)
    kept = ~np.isin(records["key"], np.fromiter(sorted(keys), np.uint64))
    rings = np.bitwise_count(records["ring_mask"])
    per_client = (rings, records["anchor_count"], (records["page"] >= 0).astype(np.int64), records["receipt_count"])
    changed: dict[str, Any] = {"clients": records[kept].tobytes(), "bets": _kept_of(saved["bets"], kept)}
    for names, counts in zip(_POOLS, per_client, strict=True):
        for name in names:
            changed[name] = _kept_of(saved[name], np.repeat(kept, counts))
    return saved | changed


def by_name(
    saved: dict[str, Any], stored: Mapping[str, Sequence[str]], names: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """A dumped block with the processes of `names`: a new one has seen nothing yet, one that is gone is left out.

    stored, names : processes, by the column that has a part for each. Raises KeyError or ValueError for what is none.
    """
    changed = {}
    for column, wanted in names.items():
        before = list(stored[column])
        if before == list(wanted):
            continue
        parts = np.frombuffer(saved[column], np.int32)
        parts = parts.reshape(-1, len(before), len(FEATURES) if column == "parts" else 1)
        mapped = np.full((len(parts), len(wanted), parts.shape[2]), 0 if column == "parts" else NEVER, np.int32)
        for place, name in enumerate(wanted):
            if name in before:
                mapped[:, place] = parts[:, before.index(name)]
        changed[column] = mapped.tobytes()
    return saved | changed


def _kept_of(column: bytes, kept: NDArray[np.bool_]) -> bytes:
    """column : len(kept) entries of one size."""
    if not len(kept):
        return column
    return np.frombuffer(column, np.uint8).reshape(len(kept), -1)[kept].tobytes()


def _in_lanes(column: NDArray[Any]) -> NDArray[Any]:
    """(n, width) with zeros to the right, up to whole lanes."""
    rows, width = column.shape
    if width == lanes(width):
        return column
    wide = np.zeros((rows, lanes(width)), column.dtype)
    wide[:, :width] = column
    return wide


def _longer(array: NDArray[Any], least: int) -> NDArray[Any]:
    size = len(array)
    while size < least:
        size *= 2
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
