"""How fast `judge` folds frames: the bytes of frames in, events out, one core.

A population of clients sends applications; three rows in ten are edits of the client's own. The state is warmed with as
many rows as are then measured, so that rings and families are as full as they get at that rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.fixtures import TABLE, artefacts, settings
from detector import engine
from detector.frame import RowFrame
from models.artefacts.store import ModelArtefact
from models.encoders.base import Encoded
from models.encoders.embedding import EmbeddingEncoder
from models.rows import F32, I64, U32, U64, Rows, blank_rows
from streams.wire import frames

FRAME_ROWS = 4_096
PARTITIONS = 12
EDITED_SHARE = 0.3
EVENTS_MIN = 100  # fewer tell nothing against the noise
START_MS = 1_760_000_000_000
POOL = 5_000  # different applications


@dataclass(frozen=True, slots=True)
class Judged:
    """rows_per_s by processor time of this process; decode_share of it was spent in `frames.decode`.

    bytes_per_client : allocated; used_per_client : of these, holding something.
    """

    clients: int
    rows: int
    rows_per_s: float
    decode_share: float
    bytes_per_client: float
    used_per_client: float
    us_per_event: float


def measure(clients: int, rows: int, seed: int = 0, name: str = TABLE) -> Judged:
    """Fold `rows` rows of `clients` clients of a model, spread over the partitions, after as many to warm up."""
    model = artefacts().models[name]
    rng = np.random.default_rng(seed)
    encoded = [
        (frame.partition, frame.offset, frames.encode(frame)) for frame in _frames(model, clients, 2 * rows, rng)
    ]
    states = [engine.open_partition(settings(silent=True), partition) for partition in range(PARTITIONS)]
    half = len(encoded) // 2
    for partition, offset, value in encoded[:half]:
        engine.step(states[partition], frames.decode(value, partition, offset))
    decoding, begun = 0.0, process_time()
    for partition, offset, value in encoded[half:]:
        started = process_time()
        frame = frames.decode(value, partition, offset)
        decoding += process_time() - started
        engine.step(states[partition], frame)
    spent = process_time() - begun
    judged = (len(encoded) - half) * FRAME_ROWS
    held = sum(table.nbytes for state in states for table in state.tables.values())
    used = sum(int(table.table.block_bytes.sum()) for state in states for table in state.tables.values())
    known = sum(state.clients for state in states)
    rates = judged / spent, decoding / spent
    return Judged(clients, judged, *rates, held / known, used / known, _us_per_event(encoded))


def _us_per_event(encoded: list[tuple[int, int, bytes]]) -> float:
    """What a decision costs on top of its row: the same frames, thresholds as fitted and out of reach; nan for few."""
    mine = [frames.decode(value, 0, offset) for partition, offset, value in encoded if partition == 0][:8]
    spent, events = [], 0
    for silent in (True, False):
        state, begun = engine.open_partition(settings(silent=silent), 0), process_time()
        events = sum(len(engine.step(state, frame)) for frame in mine)
        spent.append(process_time() - begun)
    return 1e6 * (spent[1] - spent[0]) / events if events >= EVENTS_MIN else float("nan")


class Pool(NamedTuple):
    """Inputs that rows are drawn from, as `sketch` says them."""

    encoded: Encoded
    novelty: F32
    cell: U32


def people(model: ModelArtefact, rng: np.random.Generator) -> Pool:
    names = model.encoder.field_names
    if isinstance(model.encoder, EmbeddingEncoder):
        encoded = model.encoder.encode(rng.standard_normal((POOL, model.encoder.dim_in)).tolist())
    else:
        table = np.rint(rng.lognormal(3.0, 1.0, (POOL, len(names))))
        encoded = model.encoder.encode([dict(zip(names, row, strict=True)) for row in table.tolist()])
    assert model.population is not None
    return Pool(encoded, *model.population.describe(encoded.values))


def rows_of(pool: Pool, client: I64, edited: NDArray[np.bool_], first: int, rng: np.random.Generator) -> Rows:
    """Rows as `sketch` would cut them, (n,) by client; edited ones are variants of the client's own application.

    first : number of the first row.
    """
    n, changed = len(client), int(edited.sum())
    f = pool.encoded.fields.shape[1]
    who = np.where(edited, client % POOL, rng.integers(0, POOL, n))
    fields, values, exact = pool.encoded.fields[who], pool.encoded.values[who], pool.encoded.exact[who]
    if f:
        fields[edited, rng.integers(0, f, changed)] = rng.integers(0, 65_536, changed)
    values[edited] += rng.integers(-60, 60, (changed, values.shape[1])).astype(np.int16)
    exact[edited] = rng.integers(0, 2**62, changed).astype(np.uint64)
    scores = rng.random(n).astype(np.float32)
    numbers = np.arange(first, first + n)
    ids = np.char.mod("request-%08d", numbers).astype("S16")
    return blank_rows(
        n, 0, f,
        offset=numbers, client=_keys(client), time_ms=START_MS + numbers,
        id_offsets=np.arange(n + 1, dtype=np.int32) * 16,
        id_bytes=np.frombuffer(ids.tobytes(), np.uint8), exact=exact, values=values, fields=fields,
        surprisal=pool.encoded.surprisal[who], output=(scores > 0.5).astype(np.uint32) + 1, score=scores,
        margin=np.abs(scores - 0.5), novelty=pool.novelty[who],
        cell=pool.cell[who], tokens_in=rng.integers(0, 99, n).astype(np.uint32),
    )  # fmt: skip


def _keys(client: I64) -> U64:
    """Keys that look like hashes in all their bits."""
    keys = (client.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return keys ^ (keys >> np.uint64(29))


def _frames(model: ModelArtefact, clients: int, rows: int, rng: np.random.Generator) -> Iterator[RowFrame]:
    pool = people(model, rng)
    for number in range(-(-rows // FRAME_ROWS)):
        partition = number % PARTITIONS
        client = rng.integers(0, clients // PARTITIONS, FRAME_ROWS) * PARTITIONS + partition
        edited = rng.random(FRAME_ROWS) < EDITED_SHARE
        made = rows_of(pool, client, edited, number * FRAME_ROWS, rng)
        yield RowFrame(partition, number, model.model, model.space, "bench[0]", "k1", made)
