"""The same rows to one detector of river's for each client: half-space trees, and ADWIN on what they say.

As river's users would: one HalfSpaceTrees and one ADWIN a client with their defaults, score_one, learn_one, update. In
river's favour: rows are dicts of numbers from 0 to 1 before the clock starts, while ours are the bytes of frames.
"""

import math
import resource
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.drift import ADWIN

from bench.fixtures import TABLE, artefacts, settings
from bench.judge import EDITED_SHARE, PARTITIONS, people, rows_of
from bench.performance.common import PROC, Run, spread
from detector import engine
from detector.frame import RowFrame
from models.rows import F64, I64
from streams.progress import Advance, Reporter
from streams.wire import frames

FRAMES = 4 * PARTITIONS
"""In turn by partition: each half of them has all clients."""

OUR_ROUNDS = 5

Messages = list[tuple[int, int, bytes]]


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Many clients who ask a few times, from their first row on; and few busy ones, once river has begun to judge them.

    river judges nobody in his first 250 rows (window_size), so that the first line is in its favour once more.
    """
    many = _compare(run.size(1_000, 96), 40, reporter.task("river, many clients", 100))
    busy = _compare(run.size(48, 12), 600, reporter.task("river, busy clients", 100))
    return {
        "lines": [
            _line("many clients, from their first row on", many, second_half=False),
            _line("busy clients, once river judges them", busy, second_half=True),
        ]
    }


class Compared(NamedTuple):
    """Seconds for all rows and for their second half, and bytes: river's, and ours of each round."""

    clients: int
    rows: int
    river: tuple[float, float, int]
    ours: list[tuple[float, float, int]]


def _compare(clients: int, rows_a_client: int, done: Advance) -> Compared:
    messages, client, inputs = _rows(clients, rows_a_client)
    _fold(messages)  # what is compiled for the first call
    river = _river(client, inputs, done)
    return Compared(len(np.unique(client)), len(client), river, [_fold(messages) for _ in range(OUR_ROUNDS)])


def _line(name: str, found: Compared, *, second_half: bool) -> dict[str, Any]:
    rows = found.rows // 2 if second_half else found.rows
    theirs, ours = found.river[second_half], [one[second_half] for one in found.ours]
    return {
        "name": name,
        "clients": found.clients,
        "rows": rows,
        "river_us": 1e6 * theirs / rows,
        "our_us": spread(1e6 * one / rows for one in ours),
        "times": spread(theirs / one for one in ours),
        "river_bytes": math.nan
        if second_half
        else found.river[2] / found.clients,  # later: memory that was used before
        "our_bytes": found.ours[-1][2] / found.clients,
    }


def _rows(clients: int, rows_a_client: int) -> tuple[Messages, I64, F64]:
    """Frames as bytes, and the same rows as (n,) clients and (n, fields) numbers from 0 to 1; random order."""
    model = artefacts().models[TABLE]
    rng = np.random.default_rng(3)
    pool = people(model, rng)
    messages: Messages = []
    everyone, values = [], []
    size = clients * rows_a_client // FRAMES
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
        if place % (len(rows) // 100) == 0:
            done(1)
    ended = process_time()
    return ended - begun, ended - middle, _resident() - before


def _resident() -> int:
    """Bytes at present; 0 where /proc is missing."""
    statm = PROC / "self" / "statm"
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0
