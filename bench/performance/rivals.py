"""The same rows to one detector of river's for each client: half-space trees, and ADWIN on what they say.

As river's users would: one HalfSpaceTrees and one ADWIN a client with their defaults, score_one, learn_one, update. In
river's favour: rows are dicts of numbers from 0 to 1 before the clock starts, while ours are the bytes of frames.
"""

import resource
from time import process_time
from typing import Any

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.drift import ADWIN

from bench.fixtures import TABLE, artefacts, settings
from bench.judge import EDITED_SHARE, PARTITIONS, people, rows_of
from bench.performance.common import PROC, Run, spread
from detector import engine
from detector.frame import RowFrame
from models.rows import F64, I64
from streams import frames
from streams.progress import Advance, Reporter

ROWS_A_CLIENT = 40
FRAMES = 8 * PARTITIONS
"""In turn by partition: each half of them has all clients."""

OUR_ROUNDS = 5

Messages = list[tuple[int, int, bytes]]


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    clients = run.size(1_000, 100)
    messages, client, inputs = _rows(clients)
    _fold(messages)  # what is compiled for the first call
    done = reporter.task("river", len(client))
    whole, warm, theirs_bytes = _river(client, inputs, done)
    ours = [_fold(messages) for _ in range(OUR_ROUNDS)]
    half = len(client) // 2
    return {
        "clients": len(np.unique(client)),
        "rows": len(client),
        "river": {
            "us": 1e6 * whole / len(client),
            "us_warm": 1e6 * warm / half,
            "bytes_a_client": theirs_bytes / clients,
        },
        "ours": {
            "us": spread(1e6 * one[0] / len(client) for one in ours),
            "us_warm": spread(1e6 * one[1] / half for one in ours),
            "bytes_a_client": ours[-1][2] / clients,
        },
        "times": spread(whole / one[0] for one in ours),
        "times_warm": spread(warm / one[1] for one in ours),
    }


def _rows(clients: int) -> tuple[Messages, I64, F64]:
    """Frames as bytes, and the same rows as (n,) clients and (n, fields) numbers from 0 to 1; random order."""
    model = artefacts().models[TABLE]
    rng = np.random.default_rng(3)
    pool = people(model, rng)
    messages: Messages = []
    everyone, values = [], []
    size = clients * ROWS_A_CLIENT // FRAMES
    for number in range(FRAMES):
        partition = number % PARTITIONS
        client = rng.integers(0, clients // PARTITIONS, size) * PARTITIONS + partition
        rows = rows_of(pool, client, rng.random(size) < EDITED_SHARE, number * size, rng)
        frame = RowFrame(partition, number, model.model, model.space, "bench[0]", "k1", rows)
        messages.append((partition, number, frames.encode(frame)))
        everyone.append(client)
        values.append(rows.values[:, : len(model.encoder.field_names)])
    numbers = np.concatenate(values).astype(float)
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    return messages, np.concatenate(everyone), (numbers - low) / np.maximum(high - low, 1e-9)


def _fold(messages: Messages) -> tuple[float, float, int]:
    """Seconds for all rows from an empty state, and for their second half; bytes of the state in the end."""
    made = settings(silent=True)
    states = [engine.open_partition(made, partition) for partition in range(PARTITIONS)]
    begun = middle = process_time()
    for place, (partition, offset, value) in enumerate(messages):
        if place == len(messages) // 2:
            middle = process_time()
        engine.step(states[partition], frames.decode(value, partition, offset))
    ended = process_time()
    return ended - begun, ended - middle, sum(table.nbytes for state in states for table in state.tables.values())


def _river(client: I64, inputs: F64, done: Advance) -> tuple[float, float, int]:
    """Seconds for all rows, and for their second half, when all clients have their trees; bytes of all of them."""
    names = [str(j) for j in range(inputs.shape[1])]
    rows = [dict(zip(names, row, strict=True)) for row in inputs.tolist()]
    known: dict[int, tuple[Any, Any]] = {}
    before = _resident()
    begun = middle = process_time()
    for place, (who, x) in enumerate(zip(client.tolist(), rows, strict=True)):
        if place == len(rows) // 2:
            middle = process_time()
        if who not in known:
            known[who] = HalfSpaceTrees(seed=0), ADWIN()  # type: ignore[no-untyped-call]
        trees, change = known[who]
        change.update(trees.score_one(x))
        trees.learn_one(x)
        if place % 100 == 99:
            done(100)
    ended = process_time()
    return ended - begun, ended - middle, _resident() - before


def _resident() -> int:
    """Bytes at present; 0 where /proc is missing."""
    statm = PROC / "self" / "statm"
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0
