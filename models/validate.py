"""What stored clients must satisfy before kernels see them: those check nothing, and stay inside their arrays only
because the fold keeps these bounds. A block with a good checksum may still be somebody else's invention."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.layout import ANCHOR_SIZES, DECISION_LEVELS, RECEIPT_MAX, RECEIPT_SIZES, RING_SIZES, block_of
from models.rows import TIME_MS_MAX, TIME_MS_MIN

LONGEST_HOLD_MS = 2**39
"""Seventeen years: 30 days, doubled six times, and to spare."""
DOUBLINGS_MAX = 62
REVISION_MAX = 2**31 - 2
_TIMES = ("clock_ms", "expires_ms", "decided_ms")
_COUNTS = (
    "rows", "distinct", "gap_ms", "tokens_today", "rows_today", "distinct_today", "explained_today", "rows_minute",
    "member_rows", "explained_rows", "repeats", "variants", "offgrid_rows", "low_margin_rows", "alerts",
    "unreadable_rows", "unjudged_rows",
)  # fmt: skip


class UnsoundError(ValueError):
    """Columns of a block that no fold has written."""


def check_clients(records: NDArray[np.void], block: int, blocks: int) -> None:
    """records : CLIENT as dumped, sorted by key. Raises UnsoundError."""
    keys, ring, anchors = records["key"], records["ring_size"], records["anchor_size"]
    _demand("key", bool((keys[1:] > keys[:-1]).all()) and bool((block_of(keys, np.uint64(blocks)) == block).all()))
    _demand("ring_size", bool(np.isin(ring, (0, *RING_SIZES)).all()))
    _within(records, "ring_next", 0, ring)
    beyond = np.where(ring < 64, records["ring_mask"] >> np.minimum(ring, 63).astype(np.uint64), np.uint64(0))
    _demand("ring_mask", not beyond.any())
    _demand("anchor_size", bool(np.isin(anchors, (0, *ANCHOR_SIZES)).all()))
    _within(records, "anchor_count", 0, anchors)
    _within(records, "page", -1, 0)
    receipts, count = records["receipt_size"], records["receipt_count"]
    _demand("receipt_size", bool(np.isin(receipts, (0, *RECEIPT_SIZES)).all()))
    _within(records, "receipt_count", 0, receipts)
    _within(records, "receipt_first", 0, np.where(count == RECEIPT_MAX, RECEIPT_MAX - 1, 0))
    _within(records, "forgotten_ms", TIME_MS_MIN - 1, TIME_MS_MAX)
    _within(records, "level", 0, DECISION_LEVELS - 1)
    _within(records, "revision", 0, REVISION_MAX)
    _within(records, "doublings", 0, DOUBLINGS_MAX)
    for name in _TIMES:
        _within(records, name, TIME_MS_MIN, TIME_MS_MAX + LONGEST_HOLD_MS)
    for name in _COUNTS:
        _within(records, name, -1 if name == "gap_ms" else 0, np.iinfo(records.dtype[name]).max // 2)


def check_entries(name: str, entries: NDArray[np.void]) -> None:
    """name : "anchors" or "pages". entries : those of the block's clients. Raises UnsoundError."""
    counted, times = ("variants", ("first_ms", "last_ms")) if name == "anchors" else ("rows", ("since_ms",))
    _within(entries, counted, 0, np.iinfo(entries.dtype[counted]).max // 2)
    for time in times:
        _within(entries, time, TIME_MS_MIN, TIME_MS_MAX)


def _within(records: NDArray[np.void], name: str, least: int, most: Any) -> None:
    _demand(name, bool(((records[name] >= least) & (records[name] <= most)).all()))


def _demand(name: str, holds: bool) -> None:
    if not holds:
        raise UnsoundError(f"{name} out of bounds")
