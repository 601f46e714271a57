"""Drift of one client to bytes: a record for `topics.drift`. It informs; it never throttles."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.drift.records import CLIENT_INPUTS, DriftRecord
from detector.drift.records import DRIFT as DRIFT_NAME
from detector.events.build import name_of
from detector.events.encode import id_of, moment
from detector.events.escape import json_bytes
from detector.events.finding import Event, Provenance
from detector.frame import RowFrame
from models.artefacts.store import ModelArtefact
from models.client_table import ClientTable
from models.kernels.fold.client import FAST, FINE_BITS, SLOW
from models.kernels.layout import DRIFT, SLOT
from models.rows import I64, UNIT, class_of
from probewatch_door.record import Position

FINE = UNIT << FINE_BITS
"""Steps of the averages' fixed point in a standard unit."""


def event(
    provenance: Provenance,
    artefact: ModelArtefact,
    table: ClientTable,
    frame: RowFrame,
    row: int,
    verdict: I64,
) -> Event:
    """The record of a client whose averages diverged at `row`. verdict : of the fold at that row."""
    slot, rows = int(verdict[SLOT]), frame.rows
    client = table.table.clients[slot]
    client_class = class_of(rows.client_class[row])
    page, averages = table.table.pages[client["page"]], table.table.averages[client["page"]]
    before, after = (_from_centre(averages[which], artefact) for which in (SLOW, FAST))
    position = Position(
        frame.source_of(row), int(rows.offset[row]), int(rows.index[row]), rows.request_id(row), int(client["rows"])
    )  # fmt: skip
    where = frame.space, CLIENT_INPUTS, int(client["key"]), position.source, position.offset, position.index
    record = DriftRecord(
        drift_id=id_of("drift", *where),
        state="begins",
        model=frame.model,
        space=frame.space,
        client=name_of(frame, row),
        statistic=CLIENT_INPUTS,
        test="averages",
        since=moment(int(page["since_ms"])),
        until=moment(int(client["clock_ms"])),
        before=before,
        after=after,
        magnitude=_standard(int(verdict[DRIFT])),
        direction="away" if after > before else "towards",
        deviation=None,
        p_or_threshold=_standard(int(artefact.reference.drift[client_class])),
        rows=int(page["rows"]),
        certified=bool(artefact.reference.drift_certified[client_class]),
        certificate=artefact.certificate,
        trigger=position,
        **provenance._asdict(),
    )
    return Event(
        kind="drift", id=id_of("record", *where), key=record.key.encode(), value=json_bytes(record), headers=(),
        client_key=int(client["key"]), time_ms=int(client["clock_ms"]), model=frame.model, detector=DRIFT_NAME, level=0,
        certified=bool(record.certified), incident=record.drift_id, position=position,
    )  # fmt: skip


def _standard(squared: int) -> float:
    """Standard units, from a mean square in the averages' fixed point."""
    return round(math.sqrt(squared) / FINE, 6)


def _from_centre(average: Any, artefact: ModelArtefact) -> float:
    """Root mean square distance of an average from the population's centre, wherever that has moved to."""
    population = artefact.population
    centre: Sequence[float] = (np.zeros(len(average)) if population is None else population.centre).tolist()
    squares = [(value / FINE - middle) ** 2 for value, middle in zip(average.tolist(), centre, strict=True)]
    return round(math.sqrt(math.fsum(squares) / len(squares)), 6)
