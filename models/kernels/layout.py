"""Columns of the client table, and the names of what a kernel is handed.

A client is one record plus a page of receipts and, on demand, a page of its last distinct inputs (the ring), a page of
families (anchors) and a page of two averages. Pages come in a few sizes, so that a client of one request stays small.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.rows import F32, I16, I32, I64, U8, U16, U32, U64

ID_BYTES = 40
"""Request ids are kept for explanations, cut to this length."""
RING_SIZES = (1, 4, 12, 32, 64)
ANCHOR_SIZES = (2, 16)
RECEIPT_SIZES = (4, 16, 64, 256)
RING_MAX = RING_SIZES[-1]
ANCHOR_MAX = ANCHOR_SIZES[-1]
RECEIPT_MAX = RECEIPT_SIZES[-1]
LEAVING = 32
BUCKETS = 8
CLASS_COUNT = 3
DECISION_LEVELS = 5
"""none, watch, soft, hard, block."""
SIZE_BUCKETS = 21
"""Of a count by its bits (numbers.size_bucket)."""

FEATURES = ("flip", "edit", "collinear", "margin", "record", "step", "equal_step", "field")
"""Of a variant against its family. The last one's levels are the table's fields."""
FLIP, EDIT, COLLINEAR, MARGIN, RECORD, STEP, EQUAL_STEP, FIELD = range(len(FEATURES))
LEVELLED = FIELD
"""Features with levels of their own: all but `field`, the last."""
LEVELS = 13
"""Most levels of any feature but `field`."""
NO_EDIT = LEVELS - 1
"""Level of `edit` where inputs have no fields."""
NO_RECORD, FORWARD, NO_SCORE, BACKWARD = 0, 1, 2, 3
"""Levels of `record`: a score beyond all others of the family, towards the decision threshold or away from it."""

CLIENT_PROCESSES = (
    "margin_seek", "offgrid", "novelty", "novelty_robust", "coverage", "membership", "explain", "timing",
    "unreadable", "unjudged", "unknown_model",
)  # fmt: skip
"""Bets on the client itself: one outcome a distinct row, of the last three one on every row."""
(
    MARGIN_SEEK, OFFGRID, NOVELTY, NOVELTY_ROBUST, COVERAGE, MEMBERSHIP, EXPLAIN, TIMING,
    UNREADABLE, UNJUDGED, UNKNOWN_MODEL,
) = range(len(CLIENT_PROCESSES))  # fmt: skip
CLIENT_LEVELS = 16
"""Most outcomes of any of them."""
NOVELTY_EDGES = CLIENT_LEVELS - 1
COUNTS = ("unique", "rate", "tokens", "family_size")
"""Plain counts that stand beside the bets, in thousandths: inputs and rows, thousands of tokens, variants."""
EXPLAINED_WORTH = 8
"""Distinct inputs that one with an explanation counts for: an explanation gives away about a gradient, and models fall
to several times fewer of those (Milli, Schmidt, Dragan, Hardt 2019, section 4)."""

CLIENT = np.dtype(
    [
        ("key", "u8"), ("ring_mask", "u8"),
        ("cells", "u8"), ("clock_ms", "i8"), ("decay_from_ms", "i8"), ("expires_ms", "i8"), ("decided_ms", "i8"),
        ("quiet_until_ms", "i8"), ("incident_offset", "i8"), ("gap_ms", "i8"),
        ("minute", "i8"), ("tokens_today", "i8"), ("rows", "i8"), ("distinct", "i8"),
        ("forgotten_ms", "i8"), ("record_offset", "i8"),
        ("next", "i4"), ("previous", "i4"),
        ("day", "i4"), ("rows_today", "i4"), ("distinct_today", "i4"), ("explained_today", "i4"),
        ("rows_minute", "i4"), ("member_rows", "i4"), ("explained_rows", "i4"),
        ("repeats", "i4"), ("variants", "i4"), ("offgrid_rows", "i4"), ("low_margin_rows", "i4"),
        ("unreadable_rows", "i4"), ("unjudged_rows", "i4"),
        ("offgrid_fields", "u4"), ("incident_source", "u4"), ("incident_index", "i4"), ("record_source", "u4"),
        ("receipt_start", "i4"), ("receipt_size", "i4"), ("receipt_first", "i4"), ("receipt_count", "i4"),
        ("ring_start", "i4"), ("ring_size", "i4"), ("ring_next", "i4"),
        ("anchor_start", "i4"), ("anchor_size", "i4"), ("anchor_count", "i4"),
        ("page", "i4"), ("statistic", "i4"),
        ("level", "i4"), ("revision", "i4"), ("doublings", "i4"), ("alerts", "i4"),
    ]
)  # fmt: skip

ENTRY = np.dtype([("exact", "u8"), ("score", "f4"), ("label", "u4"), ("link", "i4"), ("id_length", "i4")])

ANCHOR = np.dtype(
    [
        ("mask", "u8"), ("step2", "i8"), ("touched_row", "i8"), ("first_ms", "i8"), ("last_ms", "i8"),
        ("variants", "i4"), ("flips", "i4"), ("label", "u4"), ("label_a", "u4"), ("label_b", "u4"),
        ("rows_a", "i4"), ("rows_b", "i4"), ("rows_other", "i4"),
        ("score", "f4"), ("best_score", "f4"), ("back_score", "f4"), ("direction", "f4"), ("link", "i4"),
    ]
)  # fmt: skip

PAGE = np.dtype([("since_ms", "i8"), ("rows", "i8"), ("told_day", "i4"), ("link", "i4")])
"""Of a client's two averages (fold/client.py): when they began, rows in them, the day of the last drift record."""

RECEIPT = np.dtype([("time_ms", "i8"), ("exact", "u4")])
"""Of a row that was applied: its time, and the low half of its input's hash. Of a free page the first time is the link
to the next one."""

VARIANTS_KNOWN = 12
"""Variants that a family knows again, beside its references: a machine that goes round a few inputs repeats, and does
not probe."""

ORIGIN, LAST, BEST, BEFORE_LAST = 0, 1, 2, 3
"""The references of a family: the first three are candidates to join, the fourth gives the last step's direction."""
REFERENCES, JOINABLE = 4, 3
ORIGIN_ID, LAST_ID = 0, 1
"""Of the two request ids of a family."""

CLIENT_COST, ENTRY_COST, ANCHOR_COST, PAGE_COST, RECEIPT_COST = 0, 1, 2, 3, 4
"""Slots of Table.costs."""

# Slots of Table.heads
CLIENT_BUMP, RING_BUMP, ANCHOR_BUMP, CLIENT_FREE = 0, 1, 2, 3
RING_FREE = 4  # one per ring size
ANCHOR_FREE = 9  # one per anchor size
CLIENTS, EVICTED, SKIPPED = 11, 12, 13
PAGE_BUMP, PAGE_FREE = 14, 15
RECEIPT_BUMP, RECEIPT_FREE = 16, 17  # the latter one per receipt size
REDELIVERED = 21
BACK = 22
"""Rows more than a minute before the latest time of their client."""
HEADS = 23

# What one call of the fold ends with; the last two may fall together
DONE, GROW, CROSSED, MOVED = 0, 1, 2, 4

# Slots of the fold's verdict
LEAD_PROCESS, LEAD_ANCHOR, LEAD_EVIDENCE, STATISTIC, RAISED_LEVEL, SLOT, DRIFT = 0, 1, 2, 3, 4, 5, 6
VERDICT = 7


LANES = 8
"""Columns of values, fields and surprisals are as wide as the next multiple, filled with zeros. Compilers then compare
whole vectors: 6 ns a candidate with 24 numbers, 15 with 23."""


def block_of(client: Any, blocks: Any) -> Any:
    """The block of clients, one key or an array of keys. blocks : how many there are, as uint64 in kernels."""
    return client % blocks


def lanes(width: int) -> int:
    """A width rounded up to whole vectors."""
    return -(-width // LANES) * LANES


class Table(NamedTuple):
    """All clients of one partition and space.

    places : (2**k,) slot or -1, open addressing by key. block_head, block_bytes : (blocks,).
    mark_offset, mark_index : (blocks, sources), the position up to which a source has been applied.
    costs : bytes of a client, a ring entry, an anchor, a page of averages, a receipt. d, f : in lanes, but for the last
    columns.
    moved : (blocks, dim), how far the population has moved as far as each block knows, 1/64 value unit.
    leaving : (LEAVING,) room for the slots that leave a full block next.
    """

    clients: NDArray[np.void]
    bets: I32  # (clients, processes of a client), milli-nats
    places: I32
    heads: I64
    costs: I64
    block_head: I32
    block_bytes: I64
    mark_offset: I64
    mark_index: I64
    moved: I32
    ring: NDArray[np.void]  # (ring entries,)
    ring_values: I16  # (ring entries, d)
    ring_fields: U16  # (ring entries, f)
    ring_ids: U8  # (ring entries, 40)
    anchors: NDArray[np.void]  # (anchors,)
    anchor_values: I16  # (anchors, REFERENCES, d)
    anchor_fields: U16  # (anchors, REFERENCES, f)
    anchor_exact: U64  # (anchors, REFERENCES + VARIANTS_KNOWN), of the references and of the last variants
    anchor_ids: U8  # (anchors, 2, 40), of origin and last
    wealth: I32  # (anchors, processes of a family), milli-nats
    parts: I32  # (anchors, joint profiles, FEATURES), milli-nats since the profile's last start
    seen: U64  # (anchors, f), 64 bits of the values a field took
    changed: U16  # (anchors, f), variants in which a field changed
    pages: NDArray[np.void]  # (pages,)
    averages: I32  # (pages, 2, d), fast and slow, 1/64 value unit
    receipts: NDArray[np.void]  # (receipts,)
    leaving: I32


class Nulls(NamedTuple):
    """Log-likelihood ratios (milli-nats) and thresholds of one space, per client class (first axis, 3).

    family : (3, BUCKETS, LEVELLED, LEVELS, processes)   field : (3, f + 1, processes)
    client : (3, processes of a client, BUCKETS, CLIENT_LEVELS)   novelty : (3, NOVELTY_EDGES) edges of its levels
    rarity : (3, f) surprise of a change in each field
    tail, tail_scale : (3, all processes) 99 % quantile and length of the benign tail, milli-nats; scale 0 = off
    growth : (3, SIZE_BUCKETS) subtracted from the statistic by rows of the day
    thresholds : (3, DECISION_LEVELS), thousandths
    drift : (3,) limit of the averages' squared distance per dimension, (1/64 value unit) ** 2
    low_margin : (3,)   joint : number of joint profiles, the first of the processes
    reach2 : squared reach in value units   agreement_min : 1/16 nat   decision_threshold : of the score
    """

    family: I32
    field: I32
    rarity: I32
    client: I32
    novelty: F32
    tail: I64
    tail_scale: I64
    growth: I64
    thresholds: I64
    drift: I64
    low_margin: F32
    joint: int
    reach2: int
    agreement_min: int
    decision_threshold: float


class Tally(NamedTuple):
    """What a run over fitting clients counts; zero-length arrays switch counting and tracing off.

    family : (3, BUCKETS, LEVELLED, LEVELS)   field : (3, f + 1)
    client : (3, processes of a client, BUCKETS, CLIENT_LEVELS)
    evidence : (n, processes) milli-nats after each row   statistic : (n,) before thresholds   drift : (n,).
    """

    family: I64
    field: I64
    client: I64
    evidence: I32
    statistic: I32
    drift: I64


class Scratch(NamedTuple):
    """Where the fold works: levels (FEATURES,), evidence and leading family (processes,)."""

    levels: I64
    evidence: I32
    anchors: I32


class RowBatch(NamedTuple):
    """The columns of rows that the fold reads, values, fields and surprisals in lanes.

    mark : column of the row's source in Table.mark_offset. quiet : flags that are news about the population and no
    evidence against the client.
    """

    source: U32
    offset: I64
    item: I32
    client: U64
    client_class: U8
    time_ms: I64
    id_offsets: I32
    id_bytes: U8
    exact: U64
    values: I16
    fields: U16
    surprisal: U8
    offgrid: U32
    output: U32
    score: F32
    margin: F32
    novelty: F32
    cell: U32
    tokens_in: U32
    tokens_out: U32
    flags: U16
    append_ms: I64
    mark: I32
    quiet: U16


class Walk(NamedTuple):
    """All that a walk of a frame's rows looks at. capacity : bytes of a block. verdict : (VERDICT,) of the last row."""

    table: Table
    nulls: Nulls
    batch: RowBatch
    tally: Tally
    scratch: Scratch
    verdict: I64
    capacity: int
