"""Slow path: decoded requests to columns, also where something, or everything but the client, cannot be read.

A request that cannot be judged becomes a row without input: its client's clock moves and it is counted.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models.encoders.base import Encoded, Encoder, Flags
from models.rows import FLAG_AHEAD, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE, I64
from streams.adapters.base import Adapter
from streams.adapters.request import Request, Salvaged
from streams.config.input import Input
from streams.sketch import columns
from streams.sketch.columns import Faults, RecordColumns
from streams.sketch.identity import Identity
from streams.wire.rejects import WHOLE_RECORD, Fault

UNKNOWN_MODEL, NO_INPUT, FEW_FIELDS, UNREADABLE = "unknown_model", "no_input", "few_fields", "unreadable"
"""Why a row is not judged: labels of `probewatch_unjudged_total`."""


class Place(NamedTuple):
    """Of a request: offset and time of its record (ms, -1 for none), and its element there, or WHOLE_RECORD.

    append_ms : the time, if the broker set it; else 0.
    """

    offset: int
    element: int
    timestamp: int
    append_ms: int = 0

    @property
    def row(self) -> int:
        return max(0, self.element)


class RawValue(Protocol):
    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes | None: ...


class Elements:
    """Texts of requests, split again when one is asked for. source_name : `gateway-logs[3]`."""

    def __init__(self, source_name: str, records: Sequence[RawValue], adapter: Adapter) -> None:
        self.source_name = source_name
        self._adapter = adapter
        self._values = {record.offset: record.value or b"" for record in records}
        self._split: tuple[int, Sequence[bytes]] = (-1, ())

    def text(self, place: Place) -> bytes:
        if place.element == WHOLE_RECORD:
            return self._values[place.offset].strip()
        if self._split[0] != place.offset:
            self._split = place.offset, self._adapter.elements(self._values[place.offset])
        return self._split[1][place.element].strip()


class SlowRows(NamedTuple):
    """n rows of one space. faults : why some of them become dead letters. unread : names of fields that could not be
    read, of rows that are judged. unjudged : why rows are not.
    """

    said: RecordColumns
    encoded: Encoded
    faults: Faults
    unread: list[str]
    unjudged: list[str]


class Space(NamedTuple):
    """Where rows stand. is_named : False if their requests name no calibrated model."""

    encoder: Encoder
    threshold: float
    is_named: bool


def slow_rows(
    requests: Sequence[Request],
    places: Sequence[Place],
    space: Space,
    elements: Elements,
    identity: Identity,
    limits: Input,
) -> SlowRows:
    """A row for each request. limits : of time."""
    unread = {row: request.unread for row, request in enumerate(requests) if isinstance(request, Salvaged)}
    for row, place in enumerate(places):
        if place.element == WHOLE_RECORD:
            unread[row] = (*unread.get(row, ()), "record")
    faults = lost_ones(requests)
    time_ms, ahead = _times(requests, places, limits, faults)
    given = [
        getattr(request, space.encoder.reads) if space.is_named and row not in faults else None
        for row, request in enumerate(requests)
    ]
    encoded = columns.encode(space.encoder, given)
    for row, field, expected, got in encoded.faults:
        unread[row] = (*unread.get(row, ()), field)
        if not encoded.usable[row]:
            faults.setdefault(row, Fault(field, expected, got, "input"))
    said = _said(requests, places, time_ms, space.threshold, elements, identity, unread)
    flags = said.flags
    flags[list(unread.keys() | faults.keys())] |= FLAG_UNREADABLE
    flags[ahead] |= FLAG_AHEAD
    flags |= np.uint16(0 if space.is_named else FLAG_UNKNOWN_MODEL)
    unjudged = []
    for row in np.flatnonzero(~encoded.usable).tolist():
        if not encoded.exact[row]:
            encoded.exact[row] = identity.element(elements.text(places[row]))
        unjudged.append(_why(row, given, faults, is_named=space.is_named))
    told = [field for row, fields in unread.items() if encoded.usable[row] for field in dict.fromkeys(fields)]
    return SlowRows(said, encoded, faults, told, unjudged)


def lost_ones(requests: Sequence[Request]) -> Faults:
    """Why some of them cannot be judged."""
    return {row: one.lost for row, one in enumerate(requests) if isinstance(one, Salvaged) and one.lost}


def _why(row: int, given: Sequence[object], faults: Faults, *, is_named: bool) -> str:
    if row in faults:
        return UNREADABLE
    if not is_named:
        return UNKNOWN_MODEL
    return NO_INPUT if given[row] is None else FEW_FIELDS


def _times(requests: Sequence[Request], places: Sequence[Place], limits: Input, faults: Faults) -> tuple[I64, Flags]:
    """Milliseconds since 1970; of a time that cannot be read or taken that of the record, else 0: the client's clock
    does not move then. And which of them the broker's time bounds."""
    early_ms, late_ms = limits.earliest_ms, limits.latest_ms
    appends = np.array([place.append_ms for place in places], np.int64)
    time_ms, ahead = columns.bounded(columns.times(requests, early_ms, late_ms), appends)
    early, late = time_ms < early_ms, time_ms >= late_ms
    for row in np.flatnonzero(early | late).tolist():
        window = f"{limits.earliest:%Y-%m-%d} (input.earliest) to {limits.latest:%Y-%m-%d} (input.latest)"
        got = "an earlier one" if early[row] else "a later one"
        faults.setdefault(row, Fault("ts", f"a time from {window}", got, "time"))
        stamp = places[row].timestamp
        time_ms[row] = stamp if early_ms <= stamp < late_ms else 0.0
    return time_ms.astype(np.int64), ahead


def _said(
    requests: Sequence[Request],
    places: Sequence[Place],
    time_ms: I64,
    threshold: float,
    elements: Elements,
    identity: Identity,
    unread: dict[int, tuple[str, ...]],
) -> RecordColumns:
    answers = columns.answers(requests, threshold, identity, unread)
    client, client_tail = identity.clients([request.client_id for request in requests])
    id_offsets, id_bytes = columns.join(
        [
            request.request_id or f"{elements.source_name}@{place.offset}/{place.row}"
            for request, place in zip(requests, places, strict=True)
        ]
    )
    return RecordColumns(
        offset=np.array([place.offset for place in places], np.int64),
        index=np.array([place.row for place in places], np.int32),
        client=client,
        client_tail=client_tail,
        client_class=np.array([columns.CLASS_CODES[request.client_class] for request in requests], np.uint8),
        time_ms=time_ms,
        id_offsets=id_offsets,
        id_bytes=id_bytes,
        output=answers.output,
        score=answers.score,
        margin=answers.margin,
        tokens_in=columns.counts([request.tokens_in for request in requests]),
        tokens_out=columns.counts([request.tokens_out for request in requests]),
        flags=answers.flags,
        append_ms=np.array([place.append_ms for place in places], np.int64),
    )
