"""Bets on the client, its counts, records both ways: worked out by hand, where twin and kernel could err alike."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from models.client_table import ClientTable
from models.rows import FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE
from tests import fold_cases as cases
from tests.fold_cases import COUNTS, START_MS, Move, Shape
from tests.reference.features import Row

SHAPE = Shape(5, 5)
NOVELTY, NOVELTY_ROBUST, COVERAGE, MEMBERSHIP, EXPLAIN, TIMING, UNREADABLE, UNJUDGED, UNKNOWN_MODEL = range(2, 11)
EXPLAINED, MEMBER = 4, 8
DAY_MS = 86_400_000


class Done(NamedTuple):
    """levels : row -> process -> (bucket, level). counts : row -> unique, rate, tokens, family_size."""

    levels: list[dict[int, tuple[int, int]]]
    records: list[int | None]
    counts: list[tuple[int, ...]]
    table: ClientTable

    def of(self, process: int) -> list[int | None]:
        return [levels[process][1] if process in levels else None for levels in self.levels]


def fresh(times_ms: Sequence[int], **columns: Sequence[Any]) -> list[Row]:
    """One client's distinct rows."""
    rows = cases.history(SHAPE, [Move(2, 0, 0, 0, 1)] * len(times_ms), sources=1)
    for i, (row, time_ms) in enumerate(zip(rows, times_ms, strict=True)):
        row |= {"client_class": 0, "time_ms": time_ms} | {name: column[i] for name, column in columns.items()}
    return rows


def run(rows: list[Row], novelty: Sequence[float] = range(1, 16)) -> Done:
    nulls = cases.random_nulls(1, SHAPE.f)
    nulls.novelty[:] = np.array(novelty, np.float32)
    nulls.thresholds[:] = 1 << 40
    done = Done([], [], [], cases.new_table(SHAPE, 1, 1 << 24))
    for row in rows:
        tally = cases.new_tally(SHAPE.f)
        (seen,) = cases.run_kernel(done.table, nulls, [[row]], tally)
        assert seen
        done.levels.append({p: (bucket, level) for _, p, bucket, level in np.argwhere(tally.client).tolist()})
        done.records.append(next(iter(np.argwhere(tally.family[:, :, 4])[:, 2].tolist()), None))
        done.counts.append(seen.evidence[-COUNTS:])
    return done


def after(gaps_ms: Sequence[int]) -> list[int]:
    return np.cumsum([START_MS, *gaps_ms]).tolist()


@pytest.mark.parametrize(
    "gaps, levels",
    [
        *[([gap], [level]) for gap, level in {
            1: 0, 99: 0, 100: 2, 999: 2, 1_000: 4, 2_999: 4, 3_000: 6, 9_999: 6, 10_000: 8, 59_999: 8, 60_000: 10,
            599_999: 10, 600_000: 12, 3_599_999: 12, 3_600_000: 14, 400 * DAY_MS: 14,
        }.items()],
        ([0], [None]),
        ([1_000, 1_000], [4, 5]),
        ([1_000, 950], [4, 3]),
        ([1_000, 949], [4, 2]),
        ([950, 1_000], [2, 5]),
        ([949, 1_000], [2, 4]),
        ([40, 38, 40], [0, 1, 1]),
        ([1, 1, 2], [0, 1, 0]),
        ([1_000, 0, 1_000, 1_000], [4, None, 4, 5]),
        ([1_000, -500, 1_000, 500], [4, None, 2, 3]),  # 500 ms on from the latest, twice
    ],
)  # fmt: skip
def test_gaps(gaps: list[int], levels: list[int | None]) -> None:
    """A first gap is never regular; a twentieth of the longer gap is allowed between two."""
    assert run(fresh(after(gaps))).of(TIMING) == [None, *levels]


def test_a_repeat_is_not_bet_on_but_its_gap_counts() -> None:
    first, again, third = fresh(after([5_000, 5_000]))
    again["exact"] = first["exact"]
    done = run([first, again, third])
    assert done.of(TIMING) == [None, None, 7] and done.levels[1].keys() == {UNREADABLE, UNJUDGED, UNKNOWN_MODEL}
    assert done.levels[2][TIMING][0] == 1  # one distinct row before it


def test_novelty_on_its_edges() -> None:
    novelty = [math.nan, 0.0, 0.99, 1.0, 1.5, 14.0, 15.0, math.inf]
    done = run(fresh(after([0] * 7), novelty=novelty))
    assert done.of(NOVELTY) == done.of(NOVELTY_ROBUST) == [None, 0, 0, 1, 1, 14, 15, 15]
    assert run(fresh(after([0, 0]), novelty=[2.9, 3.0, 3.1]), [3.0] * 15).of(NOVELTY) == [0, 15, 15]


def test_cells_are_new_once() -> None:
    done = run(fresh(after([0] * 7), cell=[0, 1, 1, 64, 65, 63, 64, 2**32 - 1]))
    assert done.of(COVERAGE) == [None, 1, 0, 1, 0, 1, 0, 0]
    assert int(done.table.table.clients[0]["cells"]) == 1 << 63 | 1 << 62 | 1


def test_a_repeat_visits_no_cell() -> None:
    rows = fresh(after([1, 1]), cell=[1, 2, 2])
    rows[1]["exact"] = rows[0]["exact"]
    assert run(rows).of(COVERAGE) == [1, None, 1]


def test_members_and_explanations() -> None:
    done = run(fresh(after([0] * 4), flags=[0, 3, EXPLAINED, MEMBER, 0xFFFF & ~FLAG_UNJUDGED]))
    assert done.of(MEMBERSHIP) == [0, 0, 0, 1, 1] and done.of(EXPLAIN) == [0, 0, 1, 0, 1]
    client = done.table.table.clients[0]
    assert (client["member_rows"], client["explained_rows"], client["explained_today"]) == (2, 2, 2)
    assert [counts[0] for counts in done.counts] == [1_000, 2_000, 10_000, 11_000, 19_000]


def test_buckets_of_distinct_rows() -> None:
    done = run(fresh(after([0] * 40)))
    assert [levels[EXPLAIN][0] for levels in done.levels] == (
        [0, 1, 2] + [3] * 2 + [4] * 4 + [5] * 8 + [6] * 16 + [7] * 8
    )  # fmt: skip


def test_counts_of_the_minute_and_of_the_day() -> None:
    midnight = START_MS - START_MS % DAY_MS + DAY_MS
    times = [midnight - 60_000, midnight - 60_000, midnight - 1, midnight, midnight - 5, midnight + 60_000]
    done = run(fresh(times, tokens_in=[1, 2, 3, 4, 5, 6], tokens_out=[10] * 6, flags=[EXPLAINED] * 6))
    assert [counts[0] for counts in done.counts] == [8_000, 16_000, 24_000, 8_000, 16_000, 24_000]
    assert [counts[1] for counts in done.counts] == [1_000, 2_000, 3_000, 1_000, 2_000, 1_000]
    assert [counts[2] for counts in done.counts] == [11, 23, 36, 14, 29, 45]


def test_counts_stop_at_their_ceiling() -> None:
    done = run(fresh(after([0, 0]), tokens_in=[10**9, 10**9, 2**32 - 1], tokens_out=[0, 0, 2**32 - 1]))
    assert [counts[2] for counts in done.counts] == [10**9, 2 * 10**9, 2 * 10**9]
    assert int(done.table.table.clients[0]["tokens_today"]) == 2 * 10**9 + 2 * (2**32 - 1)


UPWARDS = ([0.25, 0.375, 0.125, 0.25, 0.375 + 5e-7, 0.75, 0.0625, math.nan], [1, 3, 0, 0, 1, 3, 2])
DOWNWARDS = ([0.75, 0.875, 0.875, 0.5, 0.625, 0.25, 1.0], [3, 0, 1, 0, 1, 3])


@pytest.mark.parametrize("scores, levels", [UPWARDS, DOWNWARDS, ([math.nan, 0.5, 0.25], [2, 2])])
def test_records_both_ways(scores: list[float], levels: list[int]) -> None:
    """A new extreme score becomes the reference, whichever way it lies."""
    rows = fresh(after([0] * (len(scores) - 1)), score=scores)
    for i, row in enumerate(rows):
        row["values"] = [5 * i, 0, 0, 0, 0]
    done = run(rows)
    assert done.records == [None, *levels]
    best = max((i for i, level in enumerate(done.records) if level in (1, 3)), default=0)
    assert int(done.table.table.anchor_exact[0, 2]) == rows[best]["exact"]


def test_the_ring_grows_to_64_places_and_goes_round() -> None:
    rows = fresh(after([0] * 70))
    for i, row in enumerate(rows):
        row |= {"values": [3_000 * (i >> 2 * axis & 3) for axis in range(5)], "fields": [i] * 5}
    sizes = []
    for n in (1, 2, 5, 13, 33, 64, 65, 71):
        done = run(rows[:n])
        sizes.append(int(done.table.table.clients[0]["ring_size"]))
        assert not done.table.table.clients[0]["variants"]
    assert sizes == [1, 4, 12, 32, 64, 64, 64, 64]
    start = int(done.table.table.clients[0]["ring_start"])
    assert done.table.table.ring["exact"][start : start + 64].tolist() == [
        row["exact"] for row in rows[64:] + rows[7:64]
    ]


def test_every_row_is_bet_on_for_whether_it_could_be_read() -> None:
    """Repeats too. What has no input ticks the clock and counts, and that is all."""
    flags = [0, FLAG_UNREADABLE, FLAG_UNJUDGED | FLAG_UNKNOWN_MODEL, FLAG_AHEAD, FLAG_UNREADABLE | FLAG_UNJUDGED]
    rows = fresh(after([1_000] * 4), flags=flags, tokens_in=[500] * 5, cell=[1] * 5)
    rows[1]["exact"] = rows[0]["exact"]
    done = run(rows)
    assert done.of(UNREADABLE) == [0, 1, 0, 1, 1]
    assert done.of(UNJUDGED) == [0, 0, 1, 0, 1]
    assert done.of(UNKNOWN_MODEL) == [0, 0, 1, 0, 0]
    assert [levels[UNREADABLE][0] for levels in done.levels] == [0, 1, 2, 3, 3], "buckets of all rows"
    assert [len(levels) for levels in done.levels][2::2] == [3, 3] and done.of(COVERAGE)[::2] == [1, None, None]
    client = done.table.table.clients[0]
    assert (client["rows"], client["distinct"], client["repeats"], client["ring_next"]) == (5, 2, 1, 2)
    assert (client["unreadable_rows"], client["unjudged_rows"], client["clock_ms"]) == (3, 2, rows[-1]["time_ms"])
    assert [counts[1:3] for counts in done.counts] == [(n * 1000, n * 500) for n in (1, 2, 3, 4, 5)]


def test_repeats_alone_call_for_decisions() -> None:
    """By their number in a minute and their tokens; nothing else of them is evidence."""
    nulls = cases.random_nulls(1, SHAPE.f)
    nulls.tail_scale[:], nulls.tail_scale[:, -COUNTS:], nulls.growth[:] = 0, 1_000, 0
    nulls.tail[:], nulls.thresholds[:] = 0, [0, 5_000, 40_000, 300_000, 1 << 40]
    for tokens, expected in ((0, [(5, 1), (40, 2), (300, 3)]), (20_000, [(1, 1), (2, 2), (15, 3)])):
        rows = fresh(after([100] * 399), tokens_in=[tokens] * 400)
        for row in rows:
            row |= {"exact": rows[0]["exact"], "client": cases.client_key(0) & 0x1FFFF}  # no offset of its own
        table = cases.new_table(SHAPE, 1, 1 << 24)
        seen = cases.run_kernel(table, nulls, [rows], cases.new_tally(SHAPE.f))
        assert [(place + 1, one.level) for place, one in enumerate(seen) if one and one.level] == expected
        assert table.table.clients[0]["repeats"] == 399


def test_a_client_costs_what_its_columns_hold() -> None:
    table = cases.new_table(SHAPE, 1, 0).table
    own = [table.clients, table.bets]
    ring = [table.ring, table.ring_values, table.ring_fields, table.ring_ids]
    families = [
        table.anchors, table.anchor_values, table.anchor_fields, table.anchor_exact, table.anchor_ids, table.wealth,
        table.parts, table.seen, table.changed,
    ]  # fmt: skip
    pages = [table.pages, table.averages]
    parts = (own, ring, families, pages, [table.receipts])
    assert table.costs.tolist() == [sum(column[0].nbytes for column in part) for part in parts]
