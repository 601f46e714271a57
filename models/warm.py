"""Compile the kernels of encoders and of the fold ahead of the first record; `streams.worker.warm` adds the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models import encoders
from models.artefacts.population import fit_population
from models.artefacts.training_set import Members, add, empty_bits
from models.client_table import ClientTable, no_tally
from models.encoders.base import Encoded, Encoder
from models.kernels.layout import (
    BUCKETS,
    CLASS_COUNT,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    COUNTS,
    DECISION_LEVELS,
    LEVELLED,
    LEVELS,
    NOVELTY_EDGES,
    SIZE_BUCKETS,
    VERDICT,
    Nulls,
)
from models.rows import Rows, blank_rows

PROCESSES, JOINT = 2, 1
EXAMPLES = 8
SEED = bytes(32)


def warm() -> None:
    """Encode and fold a few rows of every encoder, look them up, write a block and read it back."""
    for kind in encoders.ENCODERS:
        inputs = kind.examples(EXAMPLES)
        encoder = kind.fit(inputs, SEED)
        assert encoder is not None
        encoded = encoder.encode(inputs)
        fit_population(encoded.values, encoder.id).describe(encoded.values)
        _look_up(encoder, inputs, encoded)
        _fold(encoder, encoded)


def _look_up(encoder: Encoder, inputs: Sequence[Any], encoded: Encoded) -> None:
    layout = encoder.row_layout(inputs)
    if layout is not None:
        members = Members("", encoder.kind, layout, len(inputs), empty_bits(len(inputs)), SEED)
        add(members.bits, encoder.row_keys(layout, SEED)(inputs).keys)
        members.lookup(encoder).contains(encoded)


def _fold(encoder: Encoder, encoded: Encoded) -> None:
    f = len(encoder.field_names)
    table = ClientTable(encoder.dim, f, PROCESSES, JOINT, 4, 1 << 20)
    verdict = np.zeros(VERDICT, np.int64)
    tally = no_tally(f, PROCESSES + JOINT + len(CLIENT_PROCESSES) + len(COUNTS))
    table.fold(_nulls(f), table.batch(_rows(encoded)), np.zeros(4, np.int64), 0, tally, verdict)
    table.load(0, table.dump(0))


def _rows(encoded: Encoded) -> Rows:
    n, f = encoded.fields.shape
    return blank_rows(n, encoded.values.shape[1], f)._replace(
        time_ms=np.arange(n), exact=encoded.exact, values=encoded.values, fields=encoded.fields,
        surprisal=encoded.surprisal, offgrid=encoded.offgrid, odd=encoded.odd,
    )  # fmt: skip


def _nulls(fields: int) -> Nulls:
    processes = PROCESSES + JOINT + len(CLIENT_PROCESSES) + len(COUNTS)
    return Nulls(
        family=np.zeros((CLASS_COUNT, BUCKETS, LEVELLED, LEVELS, PROCESSES), np.int32),
        field=np.zeros((CLASS_COUNT, fields + 1, PROCESSES), np.int32),
        rarity=np.zeros((CLASS_COUNT, fields), np.int32),
        client=np.zeros((CLASS_COUNT, len(CLIENT_PROCESSES), BUCKETS, CLIENT_LEVELS), np.int32),
        novelty=np.zeros((CLASS_COUNT, NOVELTY_EDGES), np.float32),
        tail=np.zeros((CLASS_COUNT, processes), np.int64),
        tail_scale=np.ones((CLASS_COUNT, processes), np.int64),
        growth=np.zeros((CLASS_COUNT, SIZE_BUCKETS), np.int64),
        thresholds=np.full((CLASS_COUNT, DECISION_LEVELS), 1 << 40, np.int64),
        drift=np.zeros(CLASS_COUNT, np.int64),
        low_margin=np.zeros(CLASS_COUNT, np.float32),
        joint=JOINT,
        reach2=1 << 30,
        agreement_min=0,
        decision_threshold=0.5,
    )
