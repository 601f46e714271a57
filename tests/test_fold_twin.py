"""The fold equals its slow twin: every row's outcome and every client's state, to the last integer."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.client_table import ClientTable
from models.kernels.layout import PAGE_BUMP, PAGE_FREE, Nulls
from models.kernels.numbers import SOFTPLUS
from tests import fold_cases as cases
from tests.fold_cases import SHAPES, Move, Shape
from tests.fold_pictures import picture, slow_picture
from tests.pipeline import HANGS_S
from tests.reference.features import Row
from tests.reference.fold import SlowFold, log_one_plus

BLOCKS = 3
ROOMS = (0, 20_000, 1 << 24)

a_move = st.builds(
    Move,
    client=st.integers(0, 4),
    kind=st.integers(0, len(cases.KINDS) - 1),
    amount=st.integers(0, 400),
    wait=st.integers(0, len(cases.WAITS) - 1),
    odd=st.integers(0, 1023),
    extra=st.integers(0, 0xFFFF),
)


def compare(shape: Shape, moves: list[Move], seed: int, room: int, closed: tuple[int, ...] = ()) -> Counter[str]:
    rows = cases.history(shape, moves)
    frames = cases.cut(rows, [seed % 17 + 1, 3, 40])
    return compare_frames(shape, frames + frames[-2:], seed, room, closed)  # the last ones are told twice


def compare_frames(
    shape: Shape, frames: list[list[Row]], seed: int, room: int, closed: tuple[int, ...] = ()
) -> Counter[str]:
    """Run both engines; returns what happened, for guards.

    After a third of the frames the kernel's table is dumped and read into a new one; after two thirds some clients'
    evidence is forgotten.
    """
    nulls = cases.random_nulls(seed, shape.f)
    table = cases.new_table(shape, BLOCKS, room)
    twin = new_twin(nulls, table)
    tally = cases.new_tally(shape.f)
    fast: list[cases.Seen | None] = []
    slow: list[cases.Seen | None] = []
    gone = skipped = again = back = 0
    third = len(frames) // 3
    for part, of_part in enumerate((frames[:third], frames[third : 2 * third], frames[2 * third :])):
        if part == 1:
            gone, skipped, again, back = table.evicted, table.skipped, table.redelivered, table.back
            push(table, twin, seed)
            mute(table, twin, seed)
            table = restored(table, shape, room)
        if part == 2:
            forget(table, twin)
            push(table, twin, seed + 1)
            mute(table, twin, seed + 1)
        fast += cases.run_kernel(table, nulls, of_part, tally, closed)
        slow += cases.run_slowly(twin, of_part, closed)
    for place, (ours, theirs) in enumerate(zip(fast, slow, strict=True)):
        assert ours == theirs, f"row {place} of {len(fast)}"
    assert picture(table) == slow_picture(twin)
    counts = len(twin.clients), twin.evicted, twin.skipped, twin.back
    assert (table.count, table.evicted + gone, table.skipped + skipped, table.back + back) == counts
    assert table.redelivered + again == twin.redelivered
    assert table.table.block_bytes.tolist() == [twin.block_bytes(block) for block in range(BLOCKS)]
    followed = sum(client.averages is not None for client in twin.clients.values())
    assert followed + free_pages(table) == table.table.heads[PAGE_BUMP]
    assert cases.counted(tally) == twin.counts
    return happened(slow, twin)


def new_twin(nulls: Nulls, table: ClientTable) -> SlowFold:
    return SlowFold(cases.as_tables(nulls), BLOCKS, table.capacity, table.table.costs.tolist())


def restored(table: ClientTable, shape: Shape, room: int) -> ClientTable:
    """A new table that holds what this one dumps, and dumps it the same."""
    again = cases.new_table(shape, BLOCKS, room)
    for block in range(BLOCKS):
        again.load(block, table.dump(block))
        assert again.dump(block) == table.dump(block)
    assert picture(again) == picture(table)
    return again


def forget(table: ClientTable, twin: SlowFold) -> None:
    """A person judges every third client benign."""
    for key in sorted(twin.clients)[::3]:
        table.forget_evidence(table.find(key))
        twin.forget_evidence(twin.clients[key])
    assert picture(table) == slow_picture(twin)


def free_pages(table: ClientTable) -> int:
    """Pages of averages that were given back."""
    count, at = 0, int(table.table.heads[PAGE_FREE])
    while at >= 0:
        count, at = count + 1, int(table.table.pages[at]["link"])
    return count


def push(table: ClientTable, twin: SlowFold, seed: int) -> None:
    """Two blocks learn that the population has moved."""
    rng = np.random.default_rng(seed)
    for block in (0, 2):
        table.table.moved[block] = rng.integers(-900_000, 900_000, table.table.moved.shape[1])
        twin.moved[block] = table.table.moved[block].tolist()


def mute(table: ClientTable, twin: SlowFold, seed: int) -> None:
    """A block learns what is news about the population; the same again changes nothing."""
    rng = np.random.default_rng(seed)
    odd, offgrid, flags = (int(bits) for bits in rng.integers(0, 1 << 32, 3) & rng.integers(0, 1 << 32, 3))
    assert table.mute(1, (odd, offgrid, flags & 0xF0))
    assert not table.mute(1, (odd, offgrid, flags & 0xF0))
    twin.mute(1, odd, offgrid, flags & 0xF0)
    assert picture(table) == slow_picture(twin)


def happened(slow: list[cases.Seen | None], twin: SlowFold) -> Counter[str]:
    told: Counter[str] = Counter(twin.met, evicted=twin.evicted)
    for seen in slow:
        if seen and seen.level:
            told.update([f"level {seen.level}", f"lead {seen.lead}"])
            told["decided and drifted"] += seen.drifted
    for (kind, *where), count in twin.counts.items():
        if kind != "field":  # (class, bucket, feature, level) or (class, process, bucket, level)
            told[f"{kind} {where[2 if kind == 'family' else 1]} level {where[3]}"] += count
    for client in twin.clients.values():
        told.update(repeats=client.repeats, families=len(client.families), rings_of_64=client.ring_size == 64)
        told.update(full=len(client.families) == 16)
    return told


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    shape=st.sampled_from(SHAPES),
    moves=st.lists(a_move, min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    room=st.sampled_from(ROOMS),
    closed=st.sampled_from([(), (1,)]),
)
def test_any_small_history(
    shape: Shape, moves: list[Move], seed: int, room: int, closed: tuple[int, ...]
) -> None:  # fmt: skip
    compare(shape, moves, seed, room, closed)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("room", ROOMS)
def test_long_histories(shape: Shape, room: int) -> None:
    """And the history is of interest: every level, several leaders, evictions where room is short."""
    rng = np.random.default_rng(shape.d + room)
    told = compare(shape, cases.moves(rng, 1200, clients=9), seed=shape.d, room=room)
    assert (told["evicted"] > 10) == (room < 1 << 20)
    assert (told["averages given back"] > 3) == (room < 1 << 20)
    assert told["level 1"] and told["repeats"] and told["families"]
    if not told["evicted"]:
        assert all(told[f"level {level}"] for level in (1, 2, 3, 4))
        assert len([name for name in told if name.startswith("lead")]) >= 3


def test_many_families_push_each_other_out() -> None:
    """More families than places, and rings that go round, without wild clocks that would forget them."""
    rng = np.random.default_rng(5)
    told: Counter[str] = Counter()
    for shape in SHAPES[:3]:
        told += compare(shape, cases.moves(rng, 1500, clients=2, wild_clocks=False), seed=3, room=1 << 24)
    assert told["full"] >= 4 and told["rings_of_64"] >= 4 and told["ring inputs overwritten"] > 100


def test_rows_delivered_again_at_new_offsets() -> None:
    """More of them than a client has receipts for; late ones; more inputs of one time in one record than it has."""
    shape, rng = SHAPES[1], np.random.default_rng(8)
    rows = cases.history(shape, cases.moves(rng, 900, clients=2, wild_clocks=False), sources=1)
    end_ms = max(row["time_ms"] for row in rows)
    batch = cases.history(shape, [Move(1, 0, i, 0, 0, i) for i in range(400)], sources=1)
    for place, row in enumerate(batch):
        row |= {"offset": 5_000, "index": place, "time_ms": end_ms + 1}
    moved = [row | {"offset": row["offset"] + 10_000} for row in [*rows, *batch]]
    late = [row | {"offset": 40_000 + n, "time_ms": row["time_ms"] - n % 90_000} for n, row in enumerate(rows[::3])]
    untimed = [row | {"offset": 50_000 + n, "time_ms": 0} for n, row in enumerate(rows[::9])]
    told = compare_frames(shape, cases.cut([*rows, *batch, *moved, *late, *untimed], [9, 70]), seed=4, room=1 << 24)
    for what in ("known by a receipt", "known by no receipt", "late and new", "receipts given up"):
        assert told[what] > 20, what
    assert told["more than a page in one record"] == 400 - 256 - 1  # the first beyond a page finds nothing given up yet


@pytest.mark.parametrize("room", [20_000, 1 << 24])
def test_many_clients(room: int) -> None:
    """Tables grow, the index is hashed anew, and look-ups survive the clients that leave."""
    rng = np.random.default_rng(6)
    told = compare(SHAPES[1], cases.moves(rng, 3000, clients=200, wild_clocks=False), seed=6, room=room)
    assert (told["evicted"] > 100) == (room < 1 << 20)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_row_as_like_two_inputs_joins_the_earlier(swapped: bool) -> None:
    shape = Shape(10, 10)
    first, second, between = cases.history(shape, [Move(0, 0, 0, 0, 1)] * 3, sources=1)
    second["fields"] = [value + 100 * (i < 4) for i, value in enumerate(first["fields"])]
    between["fields"] = [value + 100 * (i < 2) for i, value in enumerate(first["fields"])]
    if swapped:
        first["fields"], second["fields"] = second["fields"], first["fields"]
    told = compare_frames(shape, [[first, second, between]], seed=2, room=0)
    assert told["families"] == 1 and told["family 1 level 2"] == 1  # it differs from either in two fields


@pytest.mark.parametrize("bets", ["family", "client"])
def test_evidence_at_its_ceiling_is_decided_on_again_when_a_decision_expires(bets: str) -> None:
    """It cannot rise any more; an attacker with 2,000 nats must not be free once the first decision has run out."""
    shape, nulls = Shape(5, 5), cases.random_nulls(3, 5)
    nulls.family[:], nulls.field[:], nulls.client[:], nulls.growth[:], nulls.tail_scale[:] = 0, 0, 0, 0, 1_000
    getattr(nulls, bets)[:] = 40_000
    table = cases.new_table(shape, BLOCKS, 1 << 24)
    twin = new_twin(nulls, table)
    rows = cases.history(shape, [Move(0, 0, 0, 0, 1), *[Move(0, 3, i, cases.HOUR, 1) for i in range(100)]])
    frames = cases.cut(rows, [])
    fast, slow = cases.run_kernel(table, nulls, frames, cases.new_tally(5)), cases.run_slowly(twin, frames)
    assert fast == slow
    assert len({seen.statistic for seen in slow[-40:] if seen}) == 1
    assert sum(seen is not None and seen.level == 4 for seen in slow[-40:]) >= 20


def test_every_level_of_every_feature_occurs_in_these_histories() -> None:
    """Equality over levels that never occur would prove nothing."""
    told: Counter[str] = Counter()
    for shape in SHAPES:
        told += compare(shape, cases.moves(np.random.default_rng(1), 900, clients=4), seed=1, room=1 << 24)
    for feature, levels in enumerate((3, 13, 3, 3, 4, 7, 3)):
        missing = [level for level in range(levels) if not told[f"family {feature} level {level}"]]
        assert missing in ([], [7, 9, 11]), f"feature {feature}"  # "the same" exists up to three fields only
    for process, levels in enumerate((2, 2, 16, 16, 2, 2, 2, 16, 2, 2, 2)):
        missing = [level for level in range(levels) if not told[f"client {process} level {level}"]]
        assert not missing, f"process {process} of clients"


def test_every_edge_and_every_leader_occurs_in_these_histories() -> None:
    told: Counter[str] = Counter()
    for seed in range(32):
        moves = cases.moves(np.random.default_rng(seed), 500, clients=3)
        told += compare(SHAPES[1 + seed % 2], moves, seed=seed, room=1 << 24)
    for what in (
        "novelty on an edge", "gaps of nothing", "gaps equal", "gaps a twentieth apart, longer",
        "gaps a twentieth apart, shorter", "gaps just over a twentieth apart", "minutes turned",
        "minutes turned on the stroke", "days turned", "days turned on the stroke", "tokens at the ceiling",
        "evidence forgotten", "drift told", "drift not told again", "drift told on another day", "decided and drifted",
        "averages of a moved population", "odd values that are news", "flags that are news",
        *[f"bet {p} faded" for p in range(cases.OF_CLIENT)],
        *[f"bet {p} faded to nothing" for p in range(cases.OF_CLIENT)], "rows without an input", "known by a receipt",
        "late and new", "the broker's time ends a decision",
    ):  # fmt: skip
        assert told[what] >= 3, what
    of_families = cases.SINGLES + cases.JOINT
    assert [p for p in range(of_families, cases.PROCESSES) if not told[f"lead {p}"]] == []


def test_log_one_plus_is_the_same_on_every_processor() -> None:
    """No entry of the table lies so near a half that the last bit of exp or log1p could tip it."""
    assert [log_one_plus(x) for x in range(8000)] == [x + int(y) for x, y in enumerate(SOFTPLUS)]
    exact = 1000 * np.log1p(np.exp(-np.arange(8000) / 1000))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6


PLAIN = """
import sys
import numpy as np
from models.kernels import layout
for name in ("CLIENT", "ENTRY", "ANCHOR", "PAGE", "RECEIPT"):  # records of plain numpy have no attributes
    setattr(layout, name, np.dtype((np.record, getattr(layout, name))))
import warnings
warnings.simplefilter("ignore", RuntimeWarning)  # hashes overflow by design
from tests import fold_cases as cases
from tests.test_fold_twin import compare
first, last = map(int, sys.argv[1:])
assert not hasattr(__import__("models.kernels.fold.fold", fromlist=["fold"]).fold, "py_func")
for shape in cases.SHAPES[first:last]:
    told = compare(shape, cases.moves(np.random.default_rng(2), 300, clients=3), seed=2, room=20_000)
    assert told["level 1"] and told["families"] and told["minutes turned"] and told["client 7 level 3"]
    assert told["averages given back"] or told["drift told"]
print("equal")
"""


@pytest.mark.parametrize("shapes", [(1, 2), pytest.param((2, 4), marks=pytest.mark.nightly)], ids=str)
def test_the_same_without_the_compiler(shapes: tuple[int, int]) -> None:
    """Plain Python checks every subscript, which compiled code does not. Other shapes nightly."""
    command = [sys.executable, "-c", PLAIN, *map(str, shapes)]
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=HANGS_S)
    assert done.stdout == "equal\n", done.stderr[-2000:]
