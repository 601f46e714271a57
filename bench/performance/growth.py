"""How the cost of a row grows with the width of its input and with the number of partitions.

By clients: see `judge`. Embeddings of any length become 64 numbers in `sketch`, so `judge` meets one width of them.
"""

import math
from typing import Any

from bench import judge as judging
from bench.fixtures import NUMBERS
from bench.performance import service
from bench.performance.common import Run, in_turn, say, spread, widths_of
from bench.performance.feeder import Feeding
from bench.performance.plain import Plain
from bench.performance.sketch import METHODS, compare
from streams.progress import Reporter
from streams.worker.allocator import settle

JUDGE_CLIENTS, JUDGE_ROWS = 10_000, 100_000
PARTITIONS = (1, 4, 12, 48)
PARTITION_CLIENTS = 10_000


def widths(run: Run, reporter: Reporter) -> dict[str, Any]:
    settle()
    kinds = widths_of(run)
    rounds, bytes_read = run.size(3, 1), run.size(30_000_000, 5_000_000)
    judged = [kind for kind in kinds if kind.fields or kind == NUMBERS]
    done = reporter.task("widths", rounds * (len(METHODS) * len(kinds) + len(judged)))
    sketched = []
    for kind in kinds:  # as many records as make about as many bytes: a long embedding takes long to read
        count = bytes_read // (250 + 20 * kind.fields + 11 * kind.dim)
        sketched.append(compare(run, kind, count, rounds, done) | {"fields": kind.fields, "dim": kind.dim})
    plain = Plain(run)
    rates = in_turn(
        {kind.name: lambda kind=kind: _judged(run, kind.model) for kind in judged} | {"plain": plain.rate}, rounds, done
    )
    base = rates.pop("plain")
    return {
        "sketch": sketched,
        "judge": [
            {"kind": name, "us": spread(1e6 / one for one in found), "of_plain": spread(map(_over, found, base))}
            for name, found in rates.items()
        ],
    }


def _judged(run: Run, model: str) -> float:
    return judging.measure(JUDGE_CLIENTS, run.size(JUDGE_ROWS, JUDGE_ROWS // 4), name=model).rows_per_s


def _over(one: float, other: float) -> float:
    return one / other


def partitions(run: Run, reporter: Reporter) -> dict[str, Any]:
    """A worker drains the same backlog from as many raw partitions as `requests` has."""
    records = run.size(150_000, 20_000)
    lines = []
    for count in PARTITIONS[1:3] if run.quick else PARTITIONS:
        say(f"{count} partitions")
        pipeline = service.make(run, count, count)
        Feeding(pipeline.order(run, records, math.inf, PARTITION_CLIENTS)).result()
        with pipeline.worker(run) as worker:
            drained = service.drain(worker, records, reporter)
            lines.append({"partitions": count, "resident_bytes": worker.resident_bytes()} | drained)
    return {"records": records, "clients": PARTITION_CLIENTS, "lines": lines}
