"""Histories and tables for tests of the fold, and readers that bring kernel state and twin state to one shape.

A history grows from moves: small integers that hypothesis can draw and shrink, and a seeded generator can pour out.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.client_table import ClientTable
from models.kernels.layout import (
    CROSSED,
    DONE,
    LEAD_ANCHOR,
    LEAD_PROCESS,
    MOVED,
    RAISED_LEVEL,
    SLOT,
    VERDICT,
    Nulls,
    Tally,
)
from models.rows import COLUMNS, Rows, blank_rows
from tests.reference.features import Row, Tables
from tests.reference.fold import SlowFold, Verdict

SINGLES, JOINT, OF_CLIENT, COUNTS = 7, 4, 11, 4
PROCESSES = SINGLES + JOINT + OF_CLIENT + COUNTS
TOKENS = PROCESSES - 2
START_MS = 1_700_000_000_000
KINDS = ("fresh", "repeat", "edit", "same_edit", "along", "nudge", "dense", "old_variant", "between", "at_reach")


class Shape(NamedTuple):
    """d values and f hashed fields: a table has d = f, embeddings have 64 and none."""

    d: int
    f: int


SHAPES = (Shape(64, 0), Shape(5, 5), Shape(10, 10), Shape(23, 23), Shape(70, 70))


class Move(NamedTuple):
    """One row: who, how it stems from that client's history, how much changes, the time that passed, odd columns.

    odd : answer, class and grid. extra : novelty, cell, flags, tokens; 0 for nothing of them.
    """

    client: int
    kind: int
    amount: int
    wait: int
    odd: int
    extra: int = 0


TO_MINUTE, TO_DAY = "to the next minute", "to the next day"
TAME: tuple[int | str, ...] = (
    0, 900, 60_000, 3_600_000, 1, 38, 40, 99, 100, 855, 949, 950, 999, 1_000, 1_053, 2_999, 3_000, 9_999, 10_000,
    59_999, 599_999, 600_000, 3_599_999, TO_MINUTE,
)  # fmt: skip
"""Edges of the levels of a gap, and pairs that differ by a twentieth or just more, either way round."""
WILD: tuple[int | str, ...] = (
    TO_DAY, 86_400_000, 3 * 86_400_000, -7_200_000, 30 * 86_400_000, 31 * 86_400_000, -86_400_000 * 400,
    86_400_000 * 365 * 6,
)  # fmt: skip
WAITS = TAME + WILD
HOUR = TAME.index(3_600_000)


def moves(rng: np.random.Generator, n: int, clients: int, wild_clocks: bool = True) -> list[Move]:
    """Mostly variants a few seconds apart; now and then a day, a month, a clock gone wrong."""
    kinds = rng.choice(len(KINDS), n, p=[0.16, 0.06, 0.18, 0.18, 0.12, 0.1, 0.05, 0.05, 0.05, 0.05])
    wild = np.array([4, 4, 2, 1, 1, 1, 0.5, 0.5]) * 0.006 * wild_clocks
    tame = np.array([0.1, 0.15, 0.1, 0.1] + [0.55 / (len(TAME) - 4)] * (len(TAME) - 4)) * (1 - wild.sum())
    waits = rng.choice(len(WAITS), n, p=np.concatenate([tame, wild]))
    who = rng.integers(0, clients, n)
    waits = np.where(rng.random(n) < 0.3, (who + np.arange(n) // 40) % len(TAME), waits)  # for a while, like a machine
    return [
        Move(*(int(part) for part in parts))
        for parts in zip(
            who, kinds, rng.integers(0, 1 << 16, n), waits, rng.integers(0, 1 << 10, n),
            rng.integers(0, 1 << 16, n), strict=True,
        )
    ]  # fmt: skip


class _Sender:
    """One client's inputs so far."""

    def __init__(self, shape: Shape, key: int) -> None:
        self.shape, self.key, self.sent = shape, key, list[tuple[list[int], list[int]]]()
        self.clock_ms = START_MS

    def wait(self, wait: int | str) -> None:
        if isinstance(wait, str):
            period = 60_000 if wait == TO_MINUTE else 86_400_000
            self.clock_ms += period - self.clock_ms % period
        else:
            self.clock_ms += wait

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


LATE_MS = (0, 300_000, 7_200_000, -60_000, 86_400_000)
"""How much later than a row its record was appended."""


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
        sender.wait(WAITS[move.wait])
        offset, index = at[source]
        rows.append(_row(sender, move, source, offset, index, values, fields))
    return rows


def _row(
    sender: _Sender, move: Move, source: int, offset: int, index: int, values: list[int], fields: list[int]
) -> Row:
    odd = move.odd
    score = float(np.float32((odd * 37 + sum(values)) % 1009 / 1009))
    if odd % 9 == 0:  # records by less and by more than a millionth
        score = float(np.float32((0.25, 0.5, 0.75)[odd % 4 % 3] + odd % 8 * 3.3e-7))
    exact = hash((tuple(values), tuple(fields))) & 0xFFFFFFFFFFFFFFFF
    return {
        "source": 7 + source, "offset": offset, "index": index, "client": sender.key,
        "client_class": (odd >> 3) % 8 if odd % 8 == 0 else sender.key % 3, "time_ms": sender.clock_ms, "exact": exact,
        "values": values, "fields": fields, "surprisal": _surprisal(len(fields)),
        "offgrid": 1 << odd % 32 if odd % 5 == 0 else 0, "output": (0, 11, 22, 33, 11, 22)[odd % 6],
        "score": math.nan if odd % 7 == 0 else score, "margin": math.nan if odd % 11 == 0 else abs(score - 0.5),
        **_extra_columns(move.extra), "odd": 1 << odd % 37 % 32 if odd % 4 == 1 else 0,
        "append_ms": sender.clock_ms + LATE_MS[move.extra % 5] if move.extra % 3 == 0 else 0,
        "request_id": f"request-{sender.key % 997}-{offset}-{index}-{'ü' * (odd % 20)}".encode(),
    }  # fmt: skip


NOVELTIES = np.arange(1, 41, dtype=np.float32) / np.float32(3.1)
"""Edges of novelty's levels are drawn from these, and novelties lie on them or one step of float32 beside."""


def _extra_columns(extra: int) -> Row:
    on = NOVELTIES[extra % 41 % 40]
    below, above = np.nextafter(on, np.float32(0)), np.nextafter(on, np.float32(99))
    novelty = (np.float32(np.nan), on, below, above, on / np.float32(1.7), np.float32(0), np.float32(np.inf), on)[
        extra % 8
    ]
    flags = 4 * (extra % 5 == 2) | 8 * (extra % 7 == 3) | extra // 32 % 4 | (1 << 15) * (extra % 11 == 5)
    flags |= 16 * (extra % 13 == 4) | 32 * (extra % 17 == 6) | 64 * (extra % 19 == 7) | 128 * (extra % 23 == 8)
    few = extra // 64 % 16
    tokens = (few * 13, few * 997) if extra % 3 == 1 else (0, 0)
    if extra % 512 == 510:
        tokens = (400_000_000, 100_000_000)  # four make the ceiling of counts
    elif extra % 512 == 511:
        tokens = (2**32 - 1, 2**32 - 1)
    return {
        "novelty": float(novelty), "cell": (0, 1, 2, 14, 64, 65, 70, 2**32 - 1, 1 + extra % 64)[extra % 9],
        "tokens_in": tokens[0], "tokens_out": tokens[1], "flags": flags,
    }  # fmt: skip


def _surprisal(f: int) -> list[int]:
    """All alike for f a multiple of 10, so that .7 of a row can be met exactly."""
    return [30 if f % 10 == 0 else 20 + (i * 7) % 40 for i in range(f)]


def as_rows(rows: Sequence[Row], shape: Shape) -> Rows:
    """Columns of rows that share one source."""
    n = len(rows)
    ids = [row["request_id"] for row in rows]
    columns: dict[str, Any] = {
        column.attribute: np.array([row[column.attribute] for row in rows], column.dtype)
        for column in COLUMNS
        if not column.cells and column.name != "guard"
    }
    return blank_rows(
        n, shape.d, shape.f, **columns,
        id_offsets=np.array([0, *itertools.accumulate(map(len, ids))], np.int32),
        id_bytes=np.frombuffer(b"".join(ids), np.uint8).copy(),
        values=np.array([row["values"] for row in rows], np.int16).reshape(n, shape.d),
        fields=np.array([row["fields"] for row in rows], np.uint16).reshape(n, shape.f),
        surprisal=np.array([row["surprisal"] for row in rows], np.uint8).reshape(n, shape.f),
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
    """Tables of the right shapes with lively numbers: bets of both signs, some processes off, levels within reach.

    The second and third profile are twins, so that ties have to be broken.
    """
    rng = np.random.default_rng(seed)

    def whole(low: int, high: int, *shape: int, dtype: type = np.int32) -> np.ndarray:
        return rng.integers(low, high, shape, dtype=dtype)

    scale = whole(300, 2500, 3, PROCESSES, dtype=np.int64)
    scale[:, -COUNTS:] = np.maximum(1000, scale[:, -COUNTS:])  # the excess of 2,000,000,000 fits an int32
    scale[rng.random(scale.shape) < rng.choice([0.15, 0.8], (3, 1))] = 0  # with most off, the others get to lead
    tail = whole(0, 4000, 3, PROCESSES, dtype=np.int64)
    tail[:, TOKENS] *= 15
    tail[:, [-3, -1]] //= 4  # rate and the largest family hardly ever lead otherwise
    thresholds = np.cumsum(whole(500, 9000, 3, 5, dtype=np.int64), axis=1)
    nulls = Nulls(
        family=whole(-1200, 1300, 3, 8, 7, 13, SINGLES),
        field=whole(-900, 1400, 3, f + 1, SINGLES),
        rarity=whole(0, 6, 3, f),
        client=whole(-1000, 1400, 3, OF_CLIENT, 8, 16),
        novelty=np.sort(rng.choice(NOVELTIES, (3, 15)), axis=1),
        tail=tail,
        tail_scale=scale,
        growth=np.sort(whole(0, 3000, 3, 21, dtype=np.int64), axis=1),
        thresholds=thresholds,
        low_margin=np.array([0.1, 0.2, 0.05], np.float32),
        joint=JOINT,
        reach2=int(rng.choice([1024, 4096])) ** 2,
        agreement_min=int(rng.choice([60, 17 * f])) if f else 0,
        decision_threshold=0.5,
        drift=whole(1 << 29, 1 << 33, 3, dtype=np.int64),
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
    drift: int = -1
    drifted: bool = False


def decision(level: int, clock_ms: int) -> tuple[int, int]:
    """What stands in for the policy: (expiry, silence until). Now and then a person silences the client."""
    return clock_ms + 600_000 * level, clock_ms + 5_400_000 if clock_ms % 7 == 0 else 0


def new_tally(f: int) -> Tally:
    """Counts of levels from nothing; no trace of rows."""
    return Tally(
        family=np.zeros((3, 8, 7, 13), np.int64),
        field=np.zeros((3, f + 1), np.int64),
        client=np.zeros((3, OF_CLIENT, 8, 16), np.int64),
        evidence=np.zeros((0, PROCESSES), np.int32),
        statistic=np.zeros(0, np.int32),
        drift=np.zeros(0, np.int64),
    )


def counted(tally: Tally) -> dict[tuple[str | int, ...], int]:
    """As the slow fold counts."""
    kinds = {"family": tally.family, "field": tally.field, "client": tally.client}
    return {
        (kind, *where): int(counts[tuple(where)])
        for kind, counts in kinds.items()
        for where in np.argwhere(counts).tolist()
    }


def run_kernel(
    table: ClientTable, nulls: Nulls, frames: Sequence[Sequence[Row]], counts: Tally, closed: Sequence[int] = ()
) -> list[Seen | None]:
    """Every row's outcome, None for a skipped one. counts : its counts of levels grow."""
    seen: list[Seen | None] = []
    shape = Shape(table.dim, table.fields)
    shut = np.zeros(len(table.table.block_head), np.int64)
    shut[list(closed)] = 1
    verdict = np.zeros(VERDICT, np.int64)
    for frame in frames:
        batch = table.batch(as_rows(frame, shape))
        skip = np.iinfo(np.int32).min
        tally = counts._replace(
            evidence=np.zeros((len(frame), PROCESSES), np.int32), statistic=np.full(len(frame), skip, np.int32),
            drift=np.full(len(frame), -1),
        )  # fmt: skip
        drifted = set[int]()
        crossings: dict[int, tuple[int, int, int]] = {}
        row, status = table.fold(nulls, batch, shut, 0, tally, verdict)
        while status != DONE:
            lead, anchor, level, slot = verdict[[LEAD_PROCESS, LEAD_ANCHOR, RAISED_LEVEL, SLOT]].tolist()
            if status & MOVED:
                drifted.add(row - 1)
            if status & CROSSED:
                client = table.table.clients[slot]
                crossings[row - 1] = (level, lead, anchor)
                client["level"] = level
                client["expires_ms"], client["quiet_until_ms"] = decision(level, int(client["clock_ms"]))
            row, status = table.fold(nulls, batch, shut, row, tally, verdict)
        for i, statistic in enumerate(tally.statistic.tolist()):
            where = crossings.get(i, (0, -9, -9))
            about = tuple(tally.evidence[i].tolist()), int(tally.drift[i]), i in drifted
            seen.append(None if statistic == skip else Seen(*where, statistic, *about))
    return seen


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
    about = tuple(verdict.evidence), verdict.drift, verdict.drifted
    return Seen(*where, max(verdict.statistic_kept, -2_000_000_000), *about)
