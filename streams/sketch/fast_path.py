"""Fast path: scanned records to columns, without a Python object for each. Faulty and unusual records are left over.

Every record that is taken gives the row that the decoder and `columns` give; tests compare the two.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.encoders.base import Encoded, Encoder, Flags, ScannedInputs
from models.encoders.table_reader import Interned
from models.kernels.json.columns import copy_texts, read_times
from models.kernels.json.scan import NUMBERS, OBJECT, TEXT, TRUE, WHOLE
from models.rows import F64, FLAG_AHEAD, FLAG_EXPLAIN, FLAG_LABEL, FLAG_REFUSED, I32, I64, U8, U16, U32
from streams.adapters import scanner
from streams.adapters.request import IDENTIFIER_CHARS, LABEL_CHARS
from streams.adapters.scanner import Scanned
from streams.sketch import columns
from streams.sketch.columns import CLASS_CODES, FLOAT32_MAX, UNDECLARED, RecordColumns
from streams.sketch.identity import Identity
from streams.sketch.model_names import ModelNames

WHOLE_DIGITS = 18
"""Labels that are longer numbers may not fit 64 bits."""


class Window(NamedTuple):
    """Times that are taken, ms since 1970, [early, late)."""

    early_ms: float
    late_ms: float


class RawPlaces(NamedTuple):
    """Of n messages: offset, and when the broker appended it, ms (0: unknown)."""

    offsets: I64
    append_ms: I64


class PlainRows(NamedTuple):
    """Plain records of one model. rows : (n,) their places."""

    model: str
    rows: I64
    encoded: Encoded
    said: RecordColumns


def plain_rows(
    found: Scanned,
    places: RawPlaces,
    encoders: Mapping[str, Encoder],
    thresholds: Mapping[str, float],
    identity: Identity,
    names: ModelNames,
    window: Window,
) -> Iterator[PlainRows]:
    """Models in order of appearance. places : of the messages.

    Left over is what has no input, no request id or no calibrated model, and a model whose encoder takes decoded inputs
    only.
    """
    time_ms, in_time, ahead = _times(found, places.append_ms, window)
    clean = found.plain & in_time & _are_short(found)
    codes, coded = _classes(found, clean)
    clean &= coded
    clean &= _labels_fit(found)
    for spelling, rows in _by_model(found, clean):
        name = names.of(spelling)
        if name is None:
            continue
        encoder = encoders[name]
        score, margin, fits = _scores(found, rows, thresholds[name])
        rows, score, margin = rows[fits], score[fits], margin[fits]
        given = np.isin(found.values.kind[scanner.FIELDS.index(encoder.reads)][rows], (OBJECT, TEXT, NUMBERS))
        rows, score, margin = rows[given], score[given], margin[given]
        scanned = encoder.encode_scanned(_inputs(encoder, found, rows))
        if scanned is None:
            continue
        encoded, good = scanned
        if not good.all():
            encoded = columns.take_encoded(encoded, good)
            rows, score, margin = rows[good], score[good], margin[good]
        said = _said(found, rows, places, time_ms, codes, score, margin, identity)
        said.flags[ahead[rows]] |= FLAG_AHEAD
        yield PlainRows(name, rows, encoded, said)


def _times(found: Scanned, append_ms: I64, window: Window) -> tuple[I64, Flags, Flags]:
    """Times, which of them are taken, and which of them the broker's time bounds."""
    values = found.values
    seconds = values.number[scanner.TS]
    kind = np.where(found.plain, values.kind[scanner.TS], 0).astype(np.uint8)
    read_times(found.text, kind, values.start[scanner.TS], values.end[scanner.TS], seconds)
    time_ms = columns.milliseconds(seconds, kind != TEXT, window.early_ms, window.late_ms)
    with np.errstate(invalid="ignore"):
        time_ms, ahead = columns.bounded(time_ms, append_ms)
        inside = (kind > 0) & (time_ms >= window.early_ms) & (time_ms < window.late_ms)
    return np.where(inside, time_ms, 0.0).astype(np.int64), inside, ahead


def _are_short(found: Scanned) -> Flags:
    """Names are there, and not too long: in bytes, of which there are at least as many as characters."""
    some = slice(scanner.CLIENT_ID, scanner.REQUEST_ID + 1)
    lengths = found.values.end[some] - found.values.start[some]
    kinds = found.values.kind[some]  # numbers are read as the digits that stand there
    named = ((kinds == TEXT) | (kinds == WHOLE)) & (lengths >= 1) & (lengths <= IDENTIFIER_CHARS)
    short: Flags = named.all(axis=0)
    counts = found.values.number[scanner.TOKENS_IN : scanner.TOKENS_OUT + 1]
    kinds = found.values.kind[scanner.TOKENS_IN : scanner.TOKENS_OUT + 1]
    short &= ((kinds != WHOLE) | ((counts >= 0) & (counts < 2**32))).all(axis=0)
    return short


def _labels_fit(found: Scanned) -> Flags:
    kind = found.values.kind[scanner.LABEL]
    if not kind.any():
        return np.ones(len(kind), np.bool_)
    length = found.values.end[scanner.LABEL] - found.values.start[scanner.LABEL]
    zero_sign = (kind == WHOLE) & (found.values.number[scanner.LABEL] == 0) & (length > 1)
    fit: Flags = ~zero_sign & (length <= np.where(kind == WHOLE, WHOLE_DIGITS, LABEL_CHARS)) | (kind <= 1)
    return fit


def _texts(found: Scanned, key: int, rows: I64) -> Interned:
    return Interned.of(found.text, found.values.start[key][rows], found.values.end[key][rows])


def _classes(found: Scanned, clean: Flags) -> tuple[U8, Flags]:
    """Declared classes, and whether they are known ones."""
    kind = found.values.kind[scanner.CLIENT_CLASS]
    codes, known = np.full(len(kind), UNDECLARED, np.uint8), np.ones(len(kind), np.bool_)
    declared = np.flatnonzero(clean & (kind == TEXT))
    if len(declared):
        texts = _texts(found, scanner.CLIENT_CLASS, declared)
        codes[declared] = np.array([CLASS_CODES.get(name, UNDECLARED) for name in texts.names], np.uint8)[texts.code]
        known[declared] = codes[declared] != UNDECLARED
    return codes, known


def _by_model(found: Scanned, clean: Flags) -> Iterator[tuple[str, I64]]:
    rows = np.flatnonzero(clean)
    if len(rows):
        texts = _texts(found, scanner.MODEL, rows)
        for code, name in enumerate(texts.names):
            yield name, rows if len(texts.names) == 1 else rows[texts.code == code]


def _scores(found: Scanned, rows: I64, threshold: float) -> tuple[F64, F64, Flags]:
    kind = found.values.kind[scanner.SCORE][rows]
    score = np.where(kind > 1, found.values.number[scanner.SCORE][rows], np.nan)
    margin = np.abs(score - threshold)
    return score, margin, ~((np.abs(score) > FLOAT32_MAX) | (margin > FLOAT32_MAX))


def _inputs(encoder: Encoder, found: Scanned, rows: I64) -> ScannedInputs:
    values, key = found.values, scanner.FIELDS.index(encoder.reads)
    places = values.kind[key][rows], values.start[key][rows], values.end[key][rows]
    return ScannedInputs(found.text, *places, found.members, found.pool)


def _said(
    found: Scanned, rows: I64, places: RawPlaces, time_ms: I64, codes: U8, score: F64, margin: F64, identity: Identity
) -> RecordColumns:
    values, n = found.values, len(rows)
    client, client_tail = identity.clients_of_utf8(_client_ids(found, rows))
    id_offsets, id_bytes = _join(found, rows)
    output, flags = _answers(found, rows, identity)
    return RecordColumns(
        offset=places.offsets[rows],
        index=np.zeros(n, np.int32),
        client=client,
        client_tail=client_tail,
        client_class=codes[rows],
        time_ms=time_ms[rows],
        id_offsets=id_offsets,
        id_bytes=id_bytes,
        output=output,
        score=score.astype(np.float32),
        margin=margin.astype(np.float32),
        tokens_in=_counts(values.kind[scanner.TOKENS_IN][rows], values.number[scanner.TOKENS_IN][rows]),
        tokens_out=_counts(values.kind[scanner.TOKENS_OUT][rows], values.number[scanner.TOKENS_OUT][rows]),
        flags=flags,
        append_ms=places.append_ms[rows],
    )


def _client_ids(found: Scanned, rows: I64) -> Sequence[bytes]:
    letters = found.text.tobytes() if len(rows) else b""
    start, end = found.values.start[scanner.CLIENT_ID], found.values.end[scanner.CLIENT_ID]
    return [letters[a:b] for a, b in zip(start[rows].tolist(), end[rows].tolist(), strict=True)]


def _join(found: Scanned, rows: I64) -> tuple[I32, U8]:
    start, end = found.values.start[scanner.REQUEST_ID][rows], found.values.end[scanner.REQUEST_ID][rows]
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(end - start, out=offsets[1:])
    joined = np.empty(offsets[-1], np.uint8)
    copy_texts(found.text, start, end, offsets, joined)
    return offsets, joined


def _answers(found: Scanned, rows: I64, identity: Identity) -> tuple[U32, U16]:
    kinds = found.values.kind
    output, flags = np.zeros(len(rows), np.uint32), np.zeros(len(rows), np.uint16)
    labelled = np.flatnonzero(kinds[scanner.LABEL][rows] > 1)
    if len(labelled):
        texts = _texts(found, scanner.LABEL, rows[labelled])
        output[labelled] = identity.labels(texts.names)[texts.code]
        flags[labelled] = FLAG_LABEL
    flags[kinds[scanner.REFUSED][rows] == TRUE] |= FLAG_REFUSED
    asked = np.flatnonzero(kinds[scanner.OPERATION][rows] == TEXT)
    if len(asked):
        texts = _texts(found, scanner.OPERATION, rows[asked])
        explains = np.array([FLAG_EXPLAIN * (name == "explain") for name in texts.names], np.uint16)
        flags[asked] |= explains[texts.code]
    return output, flags


def _counts(kind: U8, number: F64) -> U32:
    return np.where(kind == WHOLE, number, 0.0).astype(np.uint32)
