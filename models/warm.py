"""Compile the kernels of encoders and of the fold ahead of the first record; `streams.worker.warm` adds the rest."""

import numpy as np

from models.artefacts.population import fit_population
from models.artefacts.training_set import Members, add, empty_bits
from models.client_table import ClientTable, no_tally
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from models.kernels.layout import (
    BUCKETS,
    CLASS_COUNT,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    COUNTS,
    LEVELS,
    NOVELTY_EDGES,
    VERDICT,
    Nulls,
)
from models.rows import CLIENT_TAIL_BYTES, Rows

PROCESSES, JOINT = 2, 1
SEED = bytes(32)


def warm() -> None:
    """Encode and fold a few rows, write a block and read it back."""
    people: list[dict[str, float | int | str | bool | None]] = [{"a": float(i), "b": i % 2} for i in range(8)]
    encoder = TabularEncoder(fit_table(people), SEED)
    EmbeddingEncoder(4, 0.5, SEED).encode([np.ones(4, np.float32)])
    f, rows = len(encoder.field_names), _rows(encoder, people)
    population = fit_population(rows.values, encoder.id)
    population.describe(rows.values)
    members = Members("", encoder.field_names, ("number", "number"), 0, 8, empty_bits(8), SEED)
    add(members.bits, rows.exact)
    members.lookup(encoder).contains(encoder.encode(people))
    table = ClientTable(encoder.dim, f, PROCESSES, JOINT, 4, 1 << 20)
    verdict = np.zeros(VERDICT, np.int64)
    tally = no_tally(f, PROCESSES + JOINT + len(CLIENT_PROCESSES) + len(COUNTS))
    table.fold(_nulls(f), table.batch(rows), np.zeros(4, np.int64), 0, tally, verdict)
    table.load(0, table.dump(0))


def _rows(encoder: TabularEncoder, people: list[dict[str, float | int | str | bool | None]]) -> Rows:
    encoded, n = encoder.encode(people), len(people)
    zero, none = np.zeros(n, np.uint32), np.full(n, np.nan, np.float32)
    return Rows(
        source=zero, offset=np.arange(n), index=np.zeros(n, np.int32), client=np.zeros(n, np.uint64),
        client_tail=np.zeros((n, CLIENT_TAIL_BYTES), np.uint8), client_class=np.zeros(n, np.uint8),
        time_ms=np.arange(n),
        id_offsets=np.zeros(n + 1, np.int32), id_bytes=np.zeros(0, np.uint8), exact=encoded.exact,
        values=encoded.values, fields=encoded.fields, surprisal=encoded.surprisal, offgrid=encoded.offgrid,
        output=zero, score=none, margin=none, novelty=none, guard=none, cell=zero, tokens_in=zero, tokens_out=zero,
        flags=np.zeros(n, np.uint16),
    )  # fmt: skip


def _nulls(fields: int) -> Nulls:
    processes = PROCESSES + JOINT + len(CLIENT_PROCESSES) + len(COUNTS)
    return Nulls(
        family=np.zeros((CLASS_COUNT, BUCKETS, 7, LEVELS, PROCESSES), np.int32),
        field=np.zeros((CLASS_COUNT, fields + 1, PROCESSES), np.int32),
        rarity=np.zeros((CLASS_COUNT, fields), np.int32),
        client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int32),
        novelty=np.zeros((CLASS_COUNT, NOVELTY_EDGES), np.float32),
        tail=np.zeros((CLASS_COUNT, processes), np.int64),
        tail_scale=np.ones((CLASS_COUNT, processes), np.int64),
        growth=np.zeros((CLASS_COUNT, 21), np.int64),
        thresholds=np.full((CLASS_COUNT, 5), 1 << 40, np.int64),
        drift=np.zeros(CLASS_COUNT, np.int64),
        low_margin=np.zeros(CLASS_COUNT, np.float32),
        joint=JOINT,
        reach2=1 << 30,
        agreement_min=0,
        decision_threshold=0.5,
    )
