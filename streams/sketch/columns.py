"""Requests to columns of Rows, and Rows cut into frames. Lists become arrays once per column, never per row."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.artefacts.population import Population
from models.encoders.base import Encoded, Encoder, Flags
from models.reorder import take
from models.rows import (
    CLASSES,
    F32,
    F64,
    FLAG_EXPLAIN,
    FLAG_LABEL,
    FLAG_REFUSED,
    FLAG_UNJUDGED,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Rows,
)
from streams.adapters.request import Output, Request
from streams.sketch.identity import Identity
from streams.wire.frames import partition_of
from streams.wire.rejects import Fault

FRAME_ROWS = 4_096
FRAME_BYTES = 900_000
FIXED_ROW_BYTES = 112
"""Columns of one value, validity bits and the request id's offset, rounded up."""

AHEAD_MS = 300_000
"""How far a record's time may lie ahead of the broker's: clocks of gateways and brokers differ by seconds."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

_NO_OUTPUT = Output()

UNDECLARED = 255
CLASS_CODES: dict[str | None, int] = {None: UNDECLARED, **{name: code for code, name in enumerate(CLASSES)}}

Faults = dict[int, Fault]
"""Row to why it cannot be judged."""

SECOND_PARTS = 1e3, 1e6, 1e9
"""Milli-, micro- and nanoseconds."""


class RecordColumns(NamedTuple):
    """Columns of Rows that do not depend on the input. client_class : UNDECLARED where not given."""

    offset: I64
    index: I32  # type: ignore[assignment]  # as in Rows
    client: U64
    client_tail: U8
    client_class: U8
    time_ms: I64
    id_offsets: I32
    id_bytes: U8
    output: U32
    score: F32
    margin: F32
    tokens_in: U32
    tokens_out: U32
    flags: U16
    append_ms: I64


class Answers(NamedTuple):
    """The models' answers. Shapes (n,); score and margin NaN where there is none."""

    output: U32
    score: F32
    margin: F32
    flags: U16


def encode(encoder: Encoder, inputs: Sequence[object]) -> Encoded:
    """n inputs. None is one that cannot be used, and a fault is told by its place among all of them."""
    rows = np.array([row for row, item in enumerate(inputs) if item is not None], np.int64)
    encoded = encoder.encode([item for item in inputs if item is not None])
    if len(rows) == len(inputs):
        return encoded
    spread: list[NDArray[np.generic]] = []
    for column in encoded[:-1]:
        wider = np.zeros((len(inputs), *column.shape[1:]), column.dtype)
        wider[rows] = column
        spread.append(wider)
    faults = tuple(fault._replace(row=int(rows[fault.row])) for fault in encoded.faults)
    return Encoded._make([*spread, faults])


def take_encoded(encoded: Encoded, rows: NDArray[np.bool_]) -> Encoded:
    """Those inputs, without faults."""
    return Encoded._make([*(column[rows] for column in encoded[:-1]), ()])


def without_answers(said: RecordColumns, unusable: Flags) -> RecordColumns:
    """Marks rows whose input is not usable: their answers mean nothing either."""
    return said._replace(
        output=np.where(unusable, 0, said.output).astype(np.uint32),
        score=np.where(unusable, np.nan, said.score).astype(np.float32),
        margin=np.where(unusable, np.nan, said.margin).astype(np.float32),
        flags=np.where(unusable, said.flags & ~np.uint16(FLAG_LABEL) | FLAG_UNJUDGED, said.flags).astype(np.uint16),
    )


def describe(population: Population | None, values: I16) -> tuple[F32, U32]:
    """novelty and cell of n rows: NaN and 0 where nothing was fitted."""
    if population is None:
        return np.full(len(values), np.nan, np.float32), np.zeros(len(values), np.uint32)
    return population.describe(values)


def times(requests: Sequence[Request], early_ms: float, late_ms: float) -> F64:
    """Milliseconds since 1970, rounded to the nearest; floats, since nothing has bounded them yet."""
    stamps = [request.ts for request in requests]
    try:
        seconds, are_numbers = list(map(datetime.timestamp, stamps)), False  # type: ignore[arg-type]
    except TypeError:
        are_numbers = [isinstance(ts, float) for ts in stamps]  # type: ignore[assignment]
        seconds = [ts if isinstance(ts, float) else ts.timestamp() for ts in stamps]
    return milliseconds(np.array(seconds, np.float64), np.asarray(are_numbers), early_ms, late_ms)


def milliseconds(numbers: F64, are_numbers: Flags, early_ms: float, late_ms: float) -> F64:
    """Numbers as times, ms since 1970: seconds, or if these lie outside [early, late) the largest of milli-, micro- and
    nanoseconds that do not. are_numbers : (n,) or (1,), False for what was read from a date, whose unit is known."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.rint(numbers * 1000.0)
        outside = ~((found >= early_ms) & (found < late_ms)) & are_numbers
        if outside.any():
            for parts in SECOND_PARTS:
                other = np.rint(numbers / parts * 1000.0)
                fits = outside & (other >= early_ms) & (other < late_ms)
                found[fits], outside = other[fits], outside & ~fits
    return found


def bounded(time_ms: F64, append_ms: I64) -> tuple[F64, Flags]:
    """(n,) times, at most AHEAD_MS beyond the broker's where that is known (not 0), and which of them were beyond."""
    ahead: Flags = (append_ms > 0) & (time_ms > append_ms + AHEAD_MS)
    return np.where(ahead, append_ms + AHEAD_MS, time_ms), ahead


def answers(
    requests: Sequence[Request], threshold: float, identity: Identity, unread: dict[int, tuple[str, ...]]
) -> Answers:
    """threshold : the score at which the model's answer turns; margins of single scores are distances to it.

    unread : row to fields that could not be read; scores that no 32-bit float holds are added.
    """
    outputs = [request.output or _NO_OUTPUT for request in requests]
    labels = [output.label for output in outputs]
    score = np.array([output.score for output in outputs], np.float64)  # None becomes NaN
    margin = np.abs(score - threshold)
    for row in [row for row, output in enumerate(outputs) if output.scores]:
        _several(outputs[row].scores or {}, row, threshold, labels, score, margin)
    for row in np.flatnonzero((np.abs(score) > FLOAT32_MAX) | (margin > FLOAT32_MAX)).tolist():
        field = "output.scores" if outputs[row].scores else "output.score"
        unread[row] = (*unread.get(row, ()), field)
        score[row] = margin[row] = np.nan
    output = identity.labels(labels)
    flags = np.where(output != 0, FLAG_LABEL, 0)
    flags |= np.where([output.refused is True for output in outputs], FLAG_REFUSED, 0)
    flags |= np.where([request.operation == "explain" for request in requests], FLAG_EXPLAIN, 0)
    return Answers(output, score.astype(np.float32), margin.astype(np.float32), flags.astype(np.uint16))


def _several(
    scores: dict[str, float], row: int, threshold: float, labels: list[str | int | None], score: F64, margin: F64
) -> None:
    """One row with a score for each label: the best is the answer unless the log names another."""
    ranked = sorted(((value, label) for label, value in scores.items()), reverse=True)
    if labels[row] is None:
        labels[row] = ranked[0][1]
    if np.isnan(score[row]):
        score[row] = ranked[0][0]
        margin[row] = abs(score[row] - threshold)
    if len(ranked) > 1:
        margin[row] = ranked[0][0] - ranked[1][0]


def counts(values: Sequence[int | None]) -> U32:
    """(n,), 0 for None."""
    return np.array([value or 0 for value in values], np.uint32)


def join(texts: Sequence[str]) -> tuple[I32, U8]:
    """UTF-8 of n texts in one array, and the n + 1 places where they begin and end."""
    text = "".join(texts)
    lengths = map(len, texts) if text.isascii() else (len(text.encode()) for text in texts)
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int32, len(texts)), out=offsets[1:])
    return offsets, np.frombuffer(text.encode(), np.uint8)


def cut(rows: Rows, n_partitions: int) -> Iterator[tuple[int, Rows]]:
    """Rows by partition of `requests`, in frames of at most 4,096 rows and about 900 kB: each source in raw order,
    several sources in order of time.
    """
    partition = partition_of(rows.client, n_partitions).astype(np.int64)
    rows = take(rows, _order(rows, partition))
    ends = np.cumsum(np.bincount(partition, minlength=n_partitions))
    width = FIXED_ROW_BYTES + 2 * rows.values.shape[1] + 3 * rows.fields.shape[1]
    size = np.concatenate(([0], np.cumsum(np.diff(rows.id_offsets) + width)))
    start = 0
    for target, end in enumerate(ends.tolist()):
        while start < end:
            fit = int(np.searchsorted(size, size[start] + FRAME_BYTES, "right")) - 1
            stop = min(end, start + FRAME_ROWS, max(fit, start + 1))
            yield target, _slice(rows, start, stop)
            start = stop


def _order(rows: Rows, partition: I64) -> I64:
    """By partition, and there by time: one source after the other, a client of several would go back at each.

    A row's time here is the latest of its source so far: that keeps the source's own order.
    """
    order = np.lexsort((rows.index, rows.offset, rows.source, partition))
    source, partition = rows.source[order], partition[order]
    if not (np.diff(source) != 0).any():
        return order
    so_far = rows.time_ms[order]
    for part in np.split(so_far, np.flatnonzero((np.diff(source) != 0) | (np.diff(partition) != 0)) + 1):
        np.maximum.accumulate(part, out=part)
    return order[np.lexsort((so_far, partition))]


def _slice(rows: Rows, start: int, stop: int) -> Rows:
    first, last = int(rows.id_offsets[start]), int(rows.id_offsets[stop])
    columns = {name: column[start:stop] for name, column in rows._asdict().items() if not name.startswith("id_")}
    offsets = rows.id_offsets[start : stop + 1] - rows.id_offsets[start]
    return Rows(**columns, id_offsets=offsets, id_bytes=rows.id_bytes[first:last])
