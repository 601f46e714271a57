"""How fast `judge` folds frames, by number of clients, beside the plain reader; and what a million clients take."""

from dataclasses import asdict
from typing import Any

from bench import judge, memory
from bench.performance.common import Run, ratios, spread
from bench.performance.plain import Plain
from streams.app import spare_collector
from streams.progress import Reporter

ROWS_MIN = 200_000


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    """All sizes in each round, each after a plain read, so that ratios between sizes are of one moment too."""
    sizes = (120, 10_000) if run.quick else (120, 10_000, 100_000, 1_000_000)
    rounds = run.size(3, 2)
    spare_collector()
    plain = Plain(run)
    done = reporter.task("judge", sum(map(_rows, sizes)) * rounds)
    read: list[float] = []
    found: dict[int, list[judge.Judged]] = {size: [] for size in sizes}
    for number in range(rounds):
        read.append(plain.rate())
        for size in sizes:
            found[size].append(judge.measure(size, _rows(size), seed=number))
            done(_rows(size))
    return {
        "plain": spread(read),
        "clients": [
            {
                "clients": size,
                "rows": judged[0].rows,
                "rows_per_s": spread(one.rows_per_s for one in judged),
                "of_plain": ratios([one.rows_per_s for one in judged], read),
                "cost_to_10000": ratios([one.rows_per_s for one in found[10_000]], [one.rows_per_s for one in judged]),
                "last": asdict(judged[-1]),
            }
            for size, judged in found.items()
        ],
    }


def _rows(clients: int) -> int:
    """Four rows a client, but for a million of them, whose rows take long to prepare."""
    return max(ROWS_MIN, min(4 * clients, 1_000_000))


def resident(run: Run, reporter: Reporter) -> dict[str, Any]:
    """In a process of its own, as all parts."""
    clients = run.size(1_000_000, 100_000)
    reporter.task("memory", None)
    return memory.measure(clients)._asdict()
