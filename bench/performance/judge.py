"""How fast `judge` folds frames, by number of clients, beside the plain reader; and what a million clients take."""

from dataclasses import asdict
from time import process_time
from typing import Any

import numpy as np

from bench import judge, memory
from bench.performance.common import Run, ratios, spread
from bench.performance.plain import Plain
from models.kernels.jit import kernel
from models.rows import I64, U64
from streams.progress import Reporter
from streams.worker.allocator import settle

ROWS_MIN = 200_000


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    """All sizes in each round, each after a plain read, so that ratios between sizes are of one moment too."""
    sizes = (120, 10_000) if run.quick else (120, 10_000, 100_000, 1_000_000)
    rounds = run.size(3, 2)
    settle()
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
                "bound_rows_per_s": spread(_only_fetching(size, one.used_per_client) for one in judged),
                "last": asdict(judged[-1]),
            }
            for size, judged in found.items()
        ],
    }


def _rows(clients: int) -> int:
    """Four rows a client, but for a million of them, whose rows take long to prepare."""
    return max(ROWS_MIN, min(4 * clients, 1_000_000))


FETCHES = 200_000
LINE_BYTES = 64


def _only_fetching(clients: int, used_per_client: float) -> float:
    """Rows a second if a row did nothing but read its client's state from memory, all of it, as the fold does."""
    words = max(1, round(used_per_client / LINE_BYTES)) * LINE_BYTES // 8
    state = np.ones(clients * words, np.uint64)  # written to: untouched pages would all be the same one
    order = np.random.default_rng(0).integers(0, clients, FETCHES)
    _fetch(state, words, order[:1])
    begun = process_time()
    _fetch(state, words, order)
    return FETCHES / (process_time() - begun)


@kernel
def _fetch(state: U64, words: int, order: I64) -> int:
    total = np.uint64(0)
    for client in order:
        for word in range(client * words, (client + 1) * words):
            total ^= state[word]
    return int(total)


def resident(run: Run, reporter: Reporter) -> dict[str, Any]:
    """In a process of its own, as all parts."""
    clients = run.size(1_000_000, 100_000)
    reporter.task("memory", None)
    return memory.measure(clients)._asdict()
