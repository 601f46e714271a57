"""How much memory a million clients take: `python -m bench.memory [CLIENTS]`.

Most ask once, some twice or three times, every second row is an edit of the client's own; one in fifty is busy. All
of them in the partitions of one worker, folded by the engine as `judge` does, with room for everybody.
"""

import resource
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bench.fixtures import TABLE, artefacts, settings
from bench.judge import FRAME_ROWS, PARTITIONS, people, rows_of
from detector import engine
from detector.frame import RowFrame
from models.rows import I64
from streams.config.config import Config

ROWS = (1, 2, 3, 20)
SHARES = (0.60, 0.25, 0.13, 0.02)
"""Rows of a client, and how many clients have as many."""
EDITED_SHARE = 0.5
ROOM_BYTES = 64_000_000


def frames(clients: int, rng: np.random.Generator) -> Iterator[RowFrame]:
    """Rows of all clients in random order, by partition."""
    model = artefacts().models[TABLE]
    pool = people(model, rng)
    number = 0
    for partition in range(PARTITIONS):
        own = np.arange(partition, clients, PARTITIONS)
        client: I64 = rng.permutation(np.repeat(own, rng.choice(ROWS, len(own), p=SHARES)))
        for start in range(0, len(client), FRAME_ROWS):
            part = client[start : start + FRAME_ROWS]
            edited = rng.random(len(part)) < EDITED_SHARE
            rows = rows_of(pool, part, edited, number * FRAME_ROWS, rng)
            yield RowFrame(partition, number, model.model, model.space, "bench[0]", "k1", rows)
            number += 1


class Memory(NamedTuple):
    """Bytes. before : resident without a client. resident : the most so far; in_use, allocated : of clients' state."""

    clients: int
    rows: int
    in_use: int
    allocated: int
    before: int
    resident: int


def measure(clients: int) -> Memory:
    """In a process of its own, since what counts is the most that it ever took."""
    roomy = Config.model_validate({"state": {"block_bytes": ROOM_BYTES}})
    made = settings(silent=True, config=roomy)
    states = [engine.open_partition(made, partition) for partition in range(PARTITIONS)]
    before = _resident()
    rows = 0
    for frame in frames(clients, np.random.default_rng(0)):
        engine.step(states[frame.partition], frame)
        rows += frame.rows.count
    held = sum(table.nbytes for state in states for table in state.tables.values())
    used = sum(int(table.table.block_bytes.sum()) for state in states for table in state.tables.values())
    return Memory(sum(state.clients for state in states), rows, used, held, before, _resident())


def main() -> None:
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    known = found.clients
    print(f"{known:,} clients, {found.rows:,} rows ({found.rows / known:.2f} each)")
    print(f"in use {found.in_use / 1e9:.2f} GB ({found.in_use / known:.0f} bytes a client), ", end="")
    print(f"allocated {found.allocated / 1e9:.2f} GB")
    print(f"resident at most {found.resident / 1e9:.2f} GB, {found.before / 1e9:.2f} GB before the first client")


def _resident() -> int:
    """Bytes, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
