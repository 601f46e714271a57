"""Frames on the wire: one Kafka message of `requests` is one Arrow IPC stream of one record batch, or a control order.

Columns are moved whole, never row by row. Every frame is checked before it is used: a message in `requests`, whoever
wrote it, must not crash a judge.
"""

import struct
import zlib
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from detector.frame import (
    RESULT_BYTES_MAX,
    BreakerFrame,
    CloseFrame,
    ControlFrame,
    DecidedFrame,
    Frame,
    JudgeFrame,
    LinkFrame,
    ResetFrame,
    ResultFrame,
    RowFrame,
    ShiftFrame,
    named,
)
from models.pseudonym import client_of
from models.rows import CLASSES, COLUMNS, TIME_MS_MAX, TIME_MS_MIN, U64, Rows
from streams.wire import arrow_rows
from streams.wire.arrow_batch import layout
from streams.wire.memo import TwoGenerations

ROWS_SCHEMA = "probewatch.rows/1"
SEVERAL_SCHEMA = "probewatch.rows/2"
"""The same columns, with rows of several raw partitions. Readers of version 1 alone must refuse it."""

CONTROL_SCHEMA = "probewatch.control/1"
FRAME_ROWS_MAX = 65_536
WIDTH_MAX = 4_096
PREAMBLE_BYTES_MAX = 65_536
CACHED_PREAMBLES = 256
CHECKSUM_BYTES = 4
SHIFT, CLOSE, RESULT = "shift", "close", "result"
DECIDED, BREAKER, RESET = "decided", "breaker", "reset"

KIND_HEADER = "probewatch-kind"
METADATA = ("model", "space", "source_name", "key_id")

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_CONTINUATION = 0xFFFFFFFF


ClientKeys = TypeVar("ClientKeys", int, U64)


class FrameError(ValueError):
    """Bytes that are not a frame. Says what is wrong with them, and repeats none of them."""


_Time = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Level = Annotated[int, msgspec.Meta(ge=1, le=4)]


class _Preamble(NamedTuple):
    """The schema before the rows. labels : the values of METADATA. widths : of the lists `values` and `fields`."""

    schema: pa.Schema
    labels: tuple[str, str, str, str]
    widths: dict[str, int]


class _Control(msgspec.Struct):
    """client : the pseudonym; the uint64 is inside it."""

    schema: str
    action: str
    client: str
    model: str
    until_ms: _Time
    reason: str
    given_ms: _Time = 0


class _Action(msgspec.Struct):
    schema: str
    action: str


class _Shift(msgspec.Struct):
    """vector : int32 each, in value units."""

    schema: str
    action: str
    model: str
    space: str
    since_ms: _Time
    until_ms: _Time
    rows: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    vector: Annotated[tuple[_Int32, ...], msgspec.Meta(max_length=WIDTH_MAX)]


class _Close(msgspec.Struct):
    schema: str
    action: str
    fold: str
    until_ms: _Time


class _Result(msgspec.Struct):
    """body : any JSON, kept as it is."""

    schema: str
    action: str
    fold: str
    about: str
    until_ms: _Time
    body: msgspec.Raw


class _Decided(msgspec.Struct):
    """client : the pseudonym; the uint64 is inside it."""

    schema: str
    action: str
    model: str
    space: str
    artefact_hash: str
    client: str
    client_class: Annotated[int, msgspec.Meta(ge=0, lt=len(CLASSES))]
    level: _Level
    excess_milli: _Int32
    known: bool
    others: tuple[_Count, _Count]
    decided_ms: _Time
    again: bool


class _Breaker(msgspec.Struct):
    schema: str
    action: str
    model: str
    space: str
    artefact_hash: str
    revision: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]
    floors: Annotated[tuple[tuple[_Level, bool, _Time], ...], msgspec.Meta(max_length=8)]
    since_ms: _Time
    until_ms: _Time
    level: _Level
    seen: _Count
    promised: Annotated[float, msgspec.Meta(ge=0, le=2**53)]
    clients: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    opens: bool


class _Reset(msgspec.Struct):
    schema: str
    action: str
    model: str
    reason: str
    given_ms: _Time


_BREAKER_KINDS: dict[type[Any], tuple[type[Any], str]] = {
    DecidedFrame: (_Decided, DECIDED),
    BreakerFrame: (_Breaker, BREAKER),
    ResetFrame: (_Reset, RESET),
}
"""Fields are those of the frames, but for where they stand and the client, of whom the pseudonym is written."""


def partition_of(client: ClientKeys, partitions: int) -> ClientKeys:
    """The partition of `requests` that holds a client's rows. client : the uint64 key, or an array of keys."""
    return (client >> 32) % partitions  # type: ignore[return-value]  # uint64 stays uint64


def encode(frame: RowFrame) -> bytes:
    """The value of a Kafka message. partition and offset are the message's own and not in it, nor are plain names."""
    labels = tuple(getattr(frame, name) for name in METADATA)
    d, f = frame.rows.values.shape[1], frame.rows.fields.shape[1]
    schema, preamble = _written[(labels, d, f)]
    if frame.rows.count:
        return checksummed(b"".join((preamble, *layout(d, f).write(frame.rows), _END_OF_STREAM)))
    batch = pa.RecordBatch.from_arrays([pa.array([], kind) for kind in schema.types], schema=schema)
    return checksummed(b"".join((preamble, memoryview(batch.serialize()), _END_OF_STREAM)))


def checksummed(stream: bytes) -> bytes:
    """The stream with a CRC-32 behind its end, where readers of Arrow do not look: a damaged frame must not pass for
    another frame. It is no protection against people who may write to `requests`: they can compute one."""
    return stream + zlib.crc32(stream).to_bytes(CHECKSUM_BYTES, "little")


def encode_control(frame: ControlFrame | ResetFrame | LinkFrame | JudgeFrame) -> bytes:
    """Raises FrameError if the body of a ResultFrame is too long."""
    if isinstance(frame, ResetFrame | DecidedFrame | BreakerFrame):
        return _encode_breaker(frame)
    if isinstance(frame, CloseFrame):
        return msgspec.json.encode(_Close(CONTROL_SCHEMA, CLOSE, frame.fold, frame.until_ms))
    if isinstance(frame, ResultFrame):
        _check_result(frame)
        body = msgspec.Raw(frame.body)
        return msgspec.json.encode(_Result(CONTROL_SCHEMA, RESULT, frame.fold, frame.about, frame.until_ms, body))
    if isinstance(frame, ShiftFrame):
        span = frame.since_ms, frame.until_ms
        return msgspec.json.encode(
            _Shift(CONTROL_SCHEMA, SHIFT, frame.model, frame.space, *span, frame.rows, frame.vector)
        )
    about = frame.name, frame.model, frame.until_ms, frame.reason, frame.given_ms
    return msgspec.json.encode(_Control(CONTROL_SCHEMA, frame.action, *about))


def _encode_breaker(frame: ResetFrame | JudgeFrame) -> bytes:
    facts = {name: getattr(frame, name) for name in frame.__slots__ if name not in ("partition", "offset")}
    if isinstance(frame, DecidedFrame):
        facts["client"] = facts.pop("name")
    kind, action = _BREAKER_KINDS[type(frame)]
    return msgspec.json.encode(kind(CONTROL_SCHEMA, action, **facts))


def decode(value: bytes, partition: int, offset: int) -> Frame:
    """The frame in a message of `requests`. Raises FrameError, whatever the bytes are.

    Arrays are copies: aligned, writable and of one layout, so that kernels compile once.
    """
    if value[:1] == b"{":
        return _decode_control(value, partition, offset)
    if zlib.crc32(memoryview(value)[:-CHECKSUM_BYTES]) != int.from_bytes(value[-CHECKSUM_BYTES:], "little"):
        raise FrameError("damaged frame: checksum mismatch")
    try:
        start = _message_bytes(value)
        preamble = _read[value[:start]]
        rows = layout(preamble.widths["values"], preamble.widths["fields"]).read(value, start)
        if rows is None:
            rows = _by_arrow(value, start, preamble)
        _check(rows, preamble.labels[METADATA.index("source_name")])
    except FrameError:
        raise
    except arrow_rows.BatchError as error:
        raise FrameError(f"not a frame: {error}") from error
    except Exception as error:  # Arrow raises its own kinds, EOFError, OSError, ValueError … for damaged bytes
        raise FrameError(f"not a frame: {type(error).__name__} while reading Arrow") from error
    return RowFrame(partition, offset, *preamble.labels, rows)


def _check_result(frame: ResultFrame) -> None:
    if len(frame.body) > RESULT_BYTES_MAX:
        raise FrameError(f"the result of a fold has {len(frame.body)} bytes; at most {RESULT_BYTES_MAX} are read")


def _decode_link(action: str, value: bytes, partition: int, offset: int) -> LinkFrame | None:
    """A frame that `link` writes; None if it is an order."""
    if action == CLOSE:
        close = msgspec.json.decode(value, type=_Close)
        return CloseFrame(partition, offset, close.until_ms, close.fold)
    if action == SHIFT:
        shift = msgspec.json.decode(value, type=_Shift)
        span = shift.since_ms, shift.until_ms
        return ShiftFrame(partition, offset, shift.model, shift.space, *span, shift.rows, shift.vector)
    if action == RESULT:
        result = msgspec.json.decode(value, type=_Result)
        frame = ResultFrame(partition, offset, result.fold, result.about, result.until_ms, bytes(result.body))
        _check_result(frame)
        return frame
    return None


def _decode_breaker(action: str, value: bytes, partition: int, offset: int) -> ResetFrame | JudgeFrame | None:
    """A frame about the breaker; None if it is another one. Raises ValueError for a name that is no pseudonym."""
    for made, (kind, name) in _BREAKER_KINDS.items():
        if name == action:
            facts = msgspec.structs.asdict(msgspec.json.decode(value, type=kind))
            del facts["schema"], facts["action"]
            if made is DecidedFrame:
                facts["name"] = facts["client"]
                facts["client"] = client_of(facts["name"])
            frame: ResetFrame | JudgeFrame = made(partition, offset, **facts)
            return frame
    return None


def _decode_control(value: bytes, partition: int, offset: int) -> ControlFrame | ResetFrame | LinkFrame | JudgeFrame:
    try:
        action = msgspec.json.decode(value, type=_Action)
        if action.schema != CONTROL_SCHEMA:
            raise FrameError(f"not a control frame of {CONTROL_SCHEMA}")
        frame = _decode_link(action.action, value, partition, offset)
        told = _decode_breaker(action.action, value, partition, offset) if frame is None else frame
        if told is not None:
            return told
        order = msgspec.json.decode(value, type=_Control)
        client = client_of(order.client)
    except FrameError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError("not a control frame: malformed JSON, no pseudonym, or a field is missing") from error
    name, model = order.client, order.model
    about = client, name, model, order.until_ms, order.reason, order.given_ms
    return ControlFrame(partition, offset, order.action, *about)


def _write_preamble(key: tuple[tuple[str, ...], int, int]) -> tuple[pa.Schema, bytes]:
    labels, d, f = key
    named_labels = dict(zip(METADATA, labels, strict=True))
    schema_name = SEVERAL_SCHEMA if named(named_labels["source_name"]) else ROWS_SCHEMA
    metadata = {"schema": schema_name, **named_labels}
    schema = arrow_rows.schema_of({"values": d, "fields": f}).with_metadata(metadata)
    return schema, schema.serialize().to_pybytes()


def _read_preamble(value: bytes) -> _Preamble:
    schema = pa.ipc.read_schema(pa.py_buffer(value))
    metadata = {name.decode(): text.decode() for name, text in (schema.metadata or {}).items()}
    if metadata.get("schema") not in (ROWS_SCHEMA, SEVERAL_SCHEMA) or not metadata.keys() >= set(METADATA):
        raise FrameError(f"not a frame of {ROWS_SCHEMA} or {SEVERAL_SCHEMA}")
    if schema.names[: len(COLUMNS)] != [column.name for column in COLUMNS]:
        raise FrameError(f"columns are not those of {ROWS_SCHEMA}")
    labels = [metadata[name] for name in METADATA]
    widths = {name: getattr(schema.field(name).type, "list_size", -1) for name in ("values", "fields")}
    if not all(0 <= width <= WIDTH_MAX for width in widths.values()):
        raise FrameError(f"columns values and fields: expected lists of 0 to {WIDTH_MAX} items")
    for expected in arrow_rows.schema_of(widths):
        if schema.field(expected.name).type != expected.type:
            raise FrameError(f"column {expected.name}: expected the type of {ROWS_SCHEMA}")
    return _Preamble(schema, (labels[0], labels[1], labels[2], labels[3]), widths)


_written = TwoGenerations(_write_preamble, CACHED_PREAMBLES)
_read = TwoGenerations(_read_preamble, CACHED_PREAMBLES)
"""The preamble is half of a small frame's cost, and the same for all frames of a source and space."""


def _message_bytes(value: bytes) -> int:
    """Length of the schema message: marker, length of its flatbuffer, flatbuffer."""
    marker, length = struct.unpack_from("<Ii", value)
    if marker != _CONTINUATION or not 0 < length <= PREAMBLE_BYTES_MAX or 8 + length > len(value):
        raise FrameError("not a frame: no Arrow schema at the beginning")
    return int(8 + length)


def _by_arrow(value: bytes, start: int, preamble: _Preamble) -> Rows:
    """Rows of a batch that `layout` does not take: from another writer, or with request ids beyond ASCII."""
    arrow_rows.refuse_compression(value, start)
    batch = pa.ipc.read_record_batch(pa.py_buffer(value)[start:], preamble.schema)
    return arrow_rows.rows_of(batch, preamble.widths)


def _check(rows: Rows, label: str) -> None:
    """What a fold relies on."""
    if rows.count > FRAME_ROWS_MAX:
        raise FrameError(f"a frame has at most {FRAME_ROWS_MAX} rows; this one says {rows.count}")
    if rows.count and int(rows.client_class.max()) >= len(CLASSES):
        raise FrameError(f"column class: expected 0 to {len(CLASSES) - 1}")
    if rows.count and not (rows.time_ms.min() >= TIME_MS_MIN and rows.time_ms.max() < TIME_MS_MAX):
        raise FrameError("column time_ms: expected years 1 to 8999")
    if rows.count and not (rows.append_ms.min() >= 0 and rows.append_ms.max() < TIME_MS_MAX):
        raise FrameError("column append_ms: expected 0, or a time up to year 8999")
    known = named(label)
    if known and not set(np.unique(rows.source).tolist()) <= known.keys():
        raise FrameError("column source: expected the sources in source_name")
    if not known and rows.count and (rows.source != rows.source[0]).any():
        raise FrameError("column source: expected one source")
