"""A client, and what a distinct row of it comes to in the bets on the client itself, written again for reading."""

import math
from collections import Counter
from dataclasses import dataclass, field

from tests.reference.features import Family, Input, Row, Tables

NEVER = -100_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
GAP_EDGES_MS = (100, 1_000, 3_000, 10_000, 60_000, 600_000, 3_600_000)
EXPLAIN, MEMBER, UNREADABLE, UNJUDGED, UNKNOWN_MODEL, AHEAD = 4, 8, 16, 32, 64, 128
MEMBERSHIP_OUTCOME, EXPLAIN_OUTCOME = 5, 6


@dataclass
class Averages:
    """What a client sends on average, in 64ths of a value unit. told_day : the last on which a drift was told."""

    since_ms: int
    fast: list[int]
    slow: list[int]
    rows: int = 0
    told_day: int | None = None


@dataclass
class Client:
    """ring : place -> input; a place stays empty after its input founded a family.

    bets : margin_seek, offgrid, novelty, novelty_robust, coverage, membership, explain, timing, and on every row
    unreadable, unjudged, unknown_model. receipts : (time, low half of `exact`) of the latest rows, earliest first.
    forgotten_ms : the latest time of any receipt that was given up. record : source and offset of the last new row.
    """

    key: int
    clock_ms: int = 0
    decay_from_ms: int = 0
    gap_ms: int = -1
    day: int = 0
    minute: int = 0
    rows: int = 0
    rows_today: int = 0
    rows_minute: int = 0
    distinct: int = 0
    distinct_today: int = 0
    explained_today: int = 0
    tokens_today: int = 0
    repeats: int = 0
    variants: int = 0
    offgrid_rows: int = 0
    offgrid_fields: int = 0
    low_margin_rows: int = 0
    member_rows: int = 0
    explained_rows: int = 0
    unreadable_rows: int = 0
    unjudged_rows: int = 0
    cells: int = 0
    bets: list[int] = field(default_factory=lambda: [NEVER] * 11)
    statistic: int = NEVER
    level: int = 0
    expires_ms: int = 0
    quiet_until_ms: int = 0
    ring: dict[int, Input] = field(default_factory=dict)
    ring_size: int = 0
    ring_next: int = 0
    families: list[Family] = field(default_factory=list)
    family_room: int = 0
    averages: Averages | None = None
    receipts: list[tuple[int, int]] = field(default_factory=list)
    receipt_room: int = 0
    forgotten_ms: int | None = None
    record: tuple[int, int] = (0, -1)


def reading_outcomes(row: Row) -> list[int]:
    """Level of each bet on whether a row could be read."""
    flags = row["flags"] & ~row["quiet"]
    return [
        int(flags & (UNREADABLE | AHEAD) != 0),
        int(flags & UNJUDGED != 0),
        int(flags & UNKNOWN_MODEL != 0),
    ]


def outcomes(
    tables: Tables, client: Client, client_class: int, row: Row, gap_before: int, met: Counter[str]
) -> list[int | None]:
    """Level of each bet on the client, None for no bet. Marks the row's cell as visited."""
    margin = row["margin"]
    novelty = novelty_level(tables["novelty"][client_class], row["novelty"], met)
    return [
        None if math.isnan(margin) else int(margin < tables["low_margin"][client_class]),
        int(row["offgrid"] != 0) if row["fields"] else None,
        novelty,
        novelty,
        coverage_level(client, row["cell"]),
        int(row["flags"] & MEMBER != 0),
        int(row["flags"] & EXPLAIN != 0),
        timing_level(client.gap_ms, gap_before, met),
    ]


def novelty_level(edges: list[float], novelty: float, met: Counter[str]) -> int | None:
    met["novelty on an edge"] += novelty in edges
    return None if math.isnan(novelty) else sum(edge <= novelty for edge in edges)


def coverage_level(client: Client, cell: int) -> int | None:
    if cell == 0:
        return None
    bit = 1 << ((cell - 1) % 64)
    new = client.cells & bit == 0
    client.cells |= bit
    return int(new)


def timing_level(gap: int, before: int, met: Counter[str]) -> int | None:
    met["gaps of nothing"] += gap == 0
    if gap <= 0:
        return None
    apart, most = abs(gap - before), max(gap, before)
    if before > 0:
        met["gaps equal"] += apart == 0
        met["gaps a twentieth apart, longer"] += 20 * apart == most == gap
        met["gaps a twentieth apart, shorter"] += 20 * apart == most == before
        met["gaps just over a twentieth apart"] += 20 * apart > most >= 20 * (apart - 1)
    regular = before > 0 and 20 * apart <= most
    return 2 * sum(gap >= edge for edge in GAP_EDGES_MS) + regular
