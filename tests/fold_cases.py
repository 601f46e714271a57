"""Histories and tables for tests of the fold, and readers that bring kernel state and twin state to one shape.

A history grows from moves: small integers that hypothesis can draw and shrink, and a seeded generator can pour out.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.clients import ClientTable
from models.kernels.layout import CROSSED, VERDICT, Nulls, Tally
from models.rows import Rows
from tests.reference.features import Row, Tables
from tests.reference.fold import Client, SlowFold, Verdict

SINGLES, JOINT = 6, 3
PROCESSES = SINGLES + JOINT + 4
START_MS = 1_700_000_000_000
KINDS = ("fresh", "repeat", "edit", "same_edit", "along", "nudge", "dense", "old_variant", "between", "at_reach")


class Shape(NamedTuple):
    """d values and f hashed fields: a table has d = f, embeddings have 64 and none."""

    d: int
    f: int


SHAPES = (Shape(64, 0), Shape(5, 5), Shape(10, 10), Shape(23, 23), Shape(70, 70))


class Move(NamedTuple):
    """One row: who, how it stems from that client's history, how much changes, the time that passed, odd columns."""

    client: int
    kind: int
    amount: int
    wait: int
    odd: int


WAITS_MS = (
    0, 900, 60_000, 3_600_000, 86_400_000, 3 * 86_400_000, -7_200_000, 30 * 86_400_000, 31 * 86_400_000,
    -86_400_000 * 400, 86_400_000 * 365 * 6,
)  # fmt: skip


def moves(rng: np.random.Generator, n: int, clients: int, wild_clocks: bool = True) -> list[Move]:
    """Mostly variants a few seconds apart; now and then a day, a month, a clock gone wrong."""
    kinds = rng.choice(len(KINDS), n, p=[0.16, 0.06, 0.18, 0.18, 0.12, 0.1, 0.05, 0.05, 0.05, 0.05])
    often = [0.3, 0.3, 0.2, 0.1, 0.04, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005]
    waits = rng.choice(len(WAITS_MS), n, p=often) if wild_clocks else rng.choice(4, n)
    return [
        Move(int(c), int(k), int(a), int(w), int(o))
        for c, k, a, w, o in zip(
            rng.integers(0, clients, n), kinds, rng.integers(0, 1 << 16, n), waits, rng.integers(0, 1 << 10, n),
            strict=True,
        )
    ]  # fmt: skip


class _Sender:
    """One client's inputs so far."""

    def __init__(self, shape: Shape, key: int) -> None:
        self.shape, self.key, self.sent = shape, key, list[tuple[list[int], list[int]]]()
        self.clock_ms = START_MS

    def input(self, move: Move) -> tuple[list[int], list[int]]:
        place = len(self.sent) if move.kind == 0 else 0
        rng = np.random.default_rng([self.key & 0xFFFF, move.kind, move.amount, place])
        kind = KINDS[move.kind]
        if kind == "fresh" or not self.sent:
            chosen = self._fresh(rng)
        elif kind == "repeat":
            chosen = self.sent[-1 - move.amount % min(3, len(self.sent))]
        else:
            chosen = self._changed(kind, move.amount, rng)
        self.sent.append(chosen)
        return chosen

    def _fresh(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        values = rng.integers(-9000, 9000, self.shape.d).tolist()
        return values, rng.integers(0, 40, self.shape.f).tolist()

    def _changed(self, kind: str, amount: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        d, f = self.shape
        back = amount % min(8, len(self.sent)) if kind == "old_variant" else 0
        values, fields = (list(part) for part in self.sent[-1 - back])
        before, fields_before = self.sent[-2 if len(self.sent) > 1 else -1]
        touched = range(0)
        if kind == "along":  # some exactly in line with the last step, some only nearly
            values = [
                2 * x - y + (x - y) * (i * amount % 61 - 30) // 100
                for i, (x, y) in enumerate(zip(values, before, strict=True))
            ]
            touched = range(min(f, 4 + amount % 5))
        elif kind == "same_edit":
            values[0] += (amount % 97) * 10
            touched = range(min(f, 1 + amount % 2))
        elif kind == "at_reach":
            values[amount % d] += 1024 if amount % 2 else 4096
            touched = range(f)
        elif kind == "between":  # as like the last input as the one before
            differing = [i for i in range(f) if fields[i] != fields_before[i]]
            for i in differing[::2]:
                fields[i] = fields_before[i]
        else:
            count = {"edit": 1 + amount % 3, "nudge": amount % 2, "dense": d}.get(kind, 1 + amount % 7)
            touched = rng.permutation(d)[: min(d, count)].tolist()
            reach = 40 if kind in ("nudge", "dense") else 4000
            for i in touched:
                values[i] += int(rng.integers(-reach, reach))
        for i in touched:
            if i < f:
                fields[i] = int(rng.integers(0, 65_536))
        return [max(-32_767, min(32_767, value)) for value in values], fields


def client_key(number: int) -> int:
    """A spread-out uint64, as keyed hashes are."""
    return (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF


def history(shape: Shape, chosen: Iterable[Move], sources: int = 2) -> list[Row]:
    """Rows in the order of `requests`. Each client stays with one source; records hold one to three rows."""
    senders: dict[int, _Sender] = {}
    at = [[0, -1] for _ in range(sources)]
    rows = []
    for move in chosen:
        sender = senders.setdefault(move.client, _Sender(shape, client_key(move.client)))
        source = move.client % sources
        at[source] = [at[source][0], at[source][1] + 1] if move.odd % 3 == 0 else [at[source][0] + 1, 0]
        values, fields = sender.input(move)
        sender.clock_ms += WAITS_MS[move.wait]
        offset, index = at[source]
        rows.append(_row(sender, move, source, offset, index, values, fields))
    return rows


def _row(
    sender: _Sender, move: Move, source: int, offset: int, index: int, values: list[int], fields: list[int]
) -> Row:
    odd = move.odd
    score = float(np.float32((odd * 37 + sum(values)) % 1009 / 1009))
    exact = hash((tuple(values), tuple(fields))) & 0xFFFFFFFFFFFFFFFF
    return {
        "source": 7 + source, "offset": offset, "index": index, "client": sender.key,
        "klass": (odd >> 3) % 8 if odd % 8 == 0 else sender.key % 3, "time_ms": sender.clock_ms, "exact": exact,
        "values": values, "fields": fields, "surprisal": _surprisal(len(fields)),
        "offgrid": 1 << odd % 32 if odd % 5 == 0 else 0, "output": (0, 11, 22, 33, 11, 22)[odd % 6],
        "score": math.nan if odd % 7 == 0 else score, "margin": math.nan if odd % 11 == 0 else abs(score - 0.5),
        "request_id": f"request-{sender.key % 997}-{offset}-{index}-{'ü' * (odd % 20)}".encode(),
    }  # fmt: skip


def _surprisal(f: int) -> list[int]:
    """All alike for f a multiple of 10, so that .7 of a row can be met exactly."""
    return [30 if f % 10 == 0 else 20 + (i * 7) % 40 for i in range(f)]


def as_rows(rows: Sequence[Row], shape: Shape) -> Rows:
    """Columns of rows that share one source."""
    n = len(rows)
    ids = [row["request_id"] for row in rows]
    kinds = {
        "source": np.uint32, "offset": np.int64, "index": np.int32, "client": np.uint64, "klass": np.uint8,
        "time_ms": np.int64, "exact": np.uint64, "offgrid": np.uint32, "output": np.uint32, "score": np.float32,
        "margin": np.float32,
    }  # fmt: skip
    columns: dict[str, Any] = {name: np.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    nothing = np.full(n, np.nan, np.float32)
    zero = np.zeros(n, np.uint32)
    return Rows(
        **columns,
        client_tail=np.zeros((n, 9), np.uint8),
        id_offsets=np.array([0, *itertools.accumulate(map(len, ids))], np.int32),
        id_bytes=np.frombuffer(b"".join(ids), np.uint8).copy(),
        values=np.array([row["values"] for row in rows], np.int16).reshape(n, shape.d),
        fields=np.array([row["fields"] for row in rows], np.uint16).reshape(n, shape.f),
        surprisal=np.array([row["surprisal"] for row in rows], np.uint8).reshape(n, shape.f),
        novelty=nothing, guard=nothing, cell=zero, tokens_in=zero, tokens_out=zero, flags=np.zeros(n, np.uint16),
    )  # fmt: skip


def cut(rows: Sequence[Row], lengths: Iterable[int]) -> list[list[Row]]:
    """Frames of the given lengths (then of 50), cut again wherever the source changes."""
    frames: list[list[Row]] = []
    size = itertools.chain(lengths, itertools.repeat(50))
    rest = list(rows)
    while rest:
        part, rest = rest[: (n := max(1, next(size)))], rest[n:]
        frames += [list(group) for _, group in itertools.groupby(part, key=lambda row: row["source"])]
    return frames


def random_nulls(seed: int, f: int) -> Nulls:
    """Tables of the right shapes with lively numbers: bets of both signs, some processes off, rungs within reach.

    The second and third profile are twins, so that ties have to be broken.
    """
    rng = np.random.default_rng(seed)

    def whole(low: int, high: int, *shape: int, dtype: type = np.int32) -> np.ndarray:
        return rng.integers(low, high, shape, dtype=dtype)

    scale = whole(300, 2500, 3, PROCESSES, dtype=np.int64)
    scale[rng.random(scale.shape) < 0.15] = 0
    rungs = np.cumsum(whole(500, 9000, 3, 5, dtype=np.int64), axis=1)
    nulls = Nulls(
        family=whole(-1200, 1300, 3, 8, 7, 13, SINGLES),
        field=whole(-900, 1400, 3, f + 1, SINGLES),
        rarity=whole(0, 6, 3, f),
        margin=whole(-800, 1500, 3, 2),
        offgrid=whole(-700, 3000, 3, 2),
        tail=whole(0, 4000, 3, PROCESSES, dtype=np.int64),
        tail_scale=scale,
        growth=np.sort(whole(0, 3000, 3, 21, dtype=np.int64), axis=1),
        thresholds=rungs,
        low_margin=np.array([0.1, 0.2, 0.05], np.float32),
        joint=JOINT,
        reach2=int(rng.choice([1024, 4096])) ** 2,
        agreement_min=int(rng.choice([60, 17 * f])) if f else 0,
        decision_threshold=0.5,
    )
    for column in (nulls.family, nulls.field, nulls.tail, nulls.tail_scale):
        column[..., 2] = column[..., 1]
    for column in (nulls.tail, nulls.tail_scale):
        column[:, SINGLES + 2] = column[:, SINGLES + 1]
    return nulls


def as_tables(nulls: Nulls) -> Tables:
    """The same as nested lists."""
    return {
        name: column.tolist() if isinstance(column, np.ndarray) else column for name, column in nulls._asdict().items()
    }


def new_table(shape: Shape, blocks: int, room: int) -> ClientTable:
    """A table whose blocks hold one full client and `room` bytes more."""
    table = ClientTable(shape.d, shape.f, SINGLES, JOINT, blocks, 0)
    table.capacity += room
    return table


class Seen(NamedTuple):
    """What one row came to, from either engine."""

    level: int
    lead: int
    family: int
    statistic: int
    evidence: tuple[int, ...]


def decision(level: int, clock_ms: int) -> tuple[int, int]:
    """What stands in for the policy: (expiry, silence until). Now and then a person silences the client."""
    return clock_ms + 600_000 * level, clock_ms + 5_400_000 if clock_ms % 7 == 0 else 0


def run_kernel(
    table: ClientTable, nulls: Nulls, frames: Sequence[Sequence[Row]], shape: Shape, closed: Sequence[int] = ()
) -> tuple[list[Seen | None], Tally]:
    """Every row's outcome, None for a skipped one; and the counts of levels."""
    seen: list[Seen | None] = []
    family, field = np.zeros((3, 8, 7, 13), np.int64), np.zeros((3, shape.f + 1), np.int64)
    shut = np.zeros(len(table.table.block_head), np.int64)
    shut[list(closed)] = 1
    verdict = np.zeros(VERDICT, np.int64)
    for frame in frames:
        batch = table.batch(as_rows(frame, shape))
        skip = np.iinfo(np.int32).min
        tally = Tally(family, field, np.zeros((len(frame), PROCESSES), np.int32), np.full(len(frame), skip, np.int32))
        crossings: dict[int, tuple[int, int, int]] = {}
        row, status = table.fold(nulls, batch, shut, 0, tally, verdict)
        while status == CROSSED:
            lead, anchor, _, level, slot = verdict.tolist()
            client = table.table.clients[slot]
            crossings[row - 1] = (level, lead, anchor)
            client["level"] = level
            client["expires_ms"], client["quiet_until_ms"] = decision(level, int(client["clock_ms"]))
            row, status = table.fold(nulls, batch, shut, row, tally, verdict)
        for i, statistic in enumerate(tally.statistic.tolist()):
            where = crossings.get(i, (0, -9, -9))
            seen.append(None if statistic == skip else Seen(*where, statistic, tuple(tally.evidence[i].tolist())))
    return seen, Tally(family, field, np.zeros((0, PROCESSES), np.int32), np.zeros(0, np.int32))


def run_slowly(twin: SlowFold, frames: Sequence[Sequence[Row]], closed: Sequence[int] = ()) -> list[Seen | None]:
    return [_seen(twin, row, twin.apply(row, frozenset(closed))) for frame in frames for row in frame]


def _seen(twin: SlowFold, row: Row, verdict: Verdict | None) -> Seen | None:
    if verdict is None:
        return None
    where = (0, -9, -9)
    if verdict.level:
        client = twin.clients[row["client"]]
        client.level = verdict.level
        client.expires_ms, client.quiet_until_ms = decision(verdict.level, client.clock_ms)
        where = (verdict.level, verdict.lead, verdict.family)
    return Seen(*where, max(verdict.statistic_kept, -2_000_000_000), tuple(verdict.evidence))


_OF_CLIENT = (
    "key", "clock_ms", "decay_from_ms", "expires_ms", "quiet_until_ms", "rows", "distinct", "day", "rows_today",
    "distinct_today", "repeats", "variants", "offgrid_rows", "low_margin_rows", "offgrid_fields", "ring_size",
    "ring_next", "margin_seek", "offgrid", "statistic", "level",
)  # fmt: skip
_OF_FAMILY = (
    "mask", "step2", "touched_row", "first_ms", "last_ms", "variants", "flips", "label", "label_a", "label_b", "rows_a",
    "rows_b", "rows_other", "direction",
)  # fmt: skip


def picture(table: ClientTable) -> dict[int, dict[str, Any]]:
    """All clients of a kernel table as plain values."""
    arrays = table.table
    slots = [slot for slot in arrays.places.tolist() if slot >= 0]
    return {int(arrays.clients[slot]["key"]): _client_picture(table, slot) for slot in slots}


def _client_picture(table: ClientTable, slot: int) -> dict[str, Any]:
    arrays, client = table.table, table.table.clients[slot]
    start, mask = int(client["ring_start"]), int(client["ring_mask"])
    ring = {i: _entry_picture(table, start + i) for i in range(int(client["ring_size"])) if mask >> i & 1}
    assert mask < 1 << max(1, int(client["ring_size"]))
    first = int(client["anchor_start"])
    families = [_family_picture(table, first + i) for i in range(int(client["anchor_count"]))]
    plain = {name: client[name].item() for name in _OF_CLIENT}
    assert slot < len(arrays.clients)
    return plain | {"ring": ring, "families": families, "family_room": int(client["anchor_size"])}


def _entry_picture(table: ClientTable, e: int) -> tuple[Any, ...]:
    arrays, entry = table.table, table.table.ring[e]
    name = arrays.ring_ids[e].tobytes()[: int(entry["id_length"])]
    return (
        arrays.ring_values[e].tolist(), arrays.ring_fields[e].tolist(), int(entry["exact"]), str(entry["score"].item()),
        int(entry["label"]), name,
    )  # fmt: skip


def _family_picture(table: ClientTable, a: int) -> dict[str, Any]:
    arrays, family = table.table, table.table.anchors[a]
    return {name: family[name].item() for name in _OF_FAMILY} | {
        "score": str(family["score"].item()),
        "best_score": str(family["best_score"].item()),
        "references": [
            (arrays.anchor_values[a, z].tolist(), arrays.anchor_fields[a, z].tolist(), int(arrays.anchor_exact[a, z]))
            for z in range(3)
        ],
        "before_last": arrays.anchor_values[a, 3].tolist(),
        "known": sorted(exact for exact in arrays.anchor_exact[a, 4:].tolist() if exact),
        "ids": [arrays.anchor_ids[a, i].tobytes().rstrip(b"\0") for i in range(2)],
        "wealth": arrays.wealth[a].tolist(), "parts": arrays.parts[a].tolist(), "seen": arrays.seen[a].tolist(),
        "changed": arrays.changed[a].tolist(),
    }  # fmt: skip


def slow_picture(twin: SlowFold) -> dict[int, dict[str, Any]]:
    return {key: _slow_client(client) for key, client in twin.clients.items()}


def _slow_client(client: Client) -> dict[str, Any]:
    ring = {
        place: (entry.values, entry.fields, entry.exact, str(entry.score), entry.label, entry.request_id)
        for place, entry in sorted(client.ring.items())
    }
    families = [
        {name: getattr(family, name) for name in (*_OF_FAMILY, "wealth", "parts", "seen", "changed", "ids")}
        | {
            "score": str(family.score),
            "best_score": str(family.best_score),
            "references": [(ref.values, ref.fields, ref.exact) for ref in family.references[:3]],
            "before_last": family.references[3].values,
            "known": sorted(exact for exact in family.known[-12:] if exact),
        }
        for family in client.families
    ]
    plain = {name: getattr(client, name) for name in _OF_CLIENT}
    return plain | {"ring": ring, "families": families, "family_room": client.family_room}
