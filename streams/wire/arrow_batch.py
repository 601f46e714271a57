"""The columns of a row frame, and its record batch as we write it: Arrow's layout, without Arrow's objects.

Of a frame with few rows nearly all of the cost is the two dozen objects that a library makes of its columns. So the
metadata of a batch is taken from one that Arrow wrote and its numbers are put in; and a batch whose metadata is
byte for byte what would have been written for its numbers is read in place. Any other is left to Arrow.

Arrow columnar format 1.5, "Serialization and Interprocess Communication"; format/Message.fbs.
"""

import functools
import struct
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.rows import CLIENT_TAIL_BYTES, Rows

ALIGNED = 8
CACHED_LAYOUTS = 64
CACHED_METADATA = 1_024
"""Of a layout; one takes 1.3 kB. Frames of as many rows, whose request ids are as long, have the same."""

_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 2, 3
_BATCH_LENGTH, _BATCH_NODES, _BATCH_BUFFERS = 0, 1, 2


class Column(NamedTuple):
    """name : on the wire. attribute : of Rows, "" for the request ids. width : of the list in a cell, "" for a single
    value."""

    name: str
    attribute: str
    type: pa.DataType
    width: str = ""


COLUMNS = (
    Column("source", "source", pa.uint32()),
    Column("offset", "offset", pa.int64()),
    Column("index", "index", pa.int32()),
    Column("client", "client", pa.uint64()),
    Column("class", "client_class", pa.uint8()),
    Column("time_ms", "time_ms", pa.int64()),
    Column("request_id", "", pa.string()),
    Column("exact", "exact", pa.uint64()),
    Column("values", "values", pa.int16(), "values"),
    Column("fields", "fields", pa.uint16(), "fields"),
    Column("surprisal", "surprisal", pa.uint8(), "fields"),
    Column("offgrid", "offgrid", pa.uint32()),
    Column("output", "output", pa.uint32()),
    Column("score", "score", pa.float32()),
    Column("margin", "margin", pa.float32()),
    Column("novelty", "novelty", pa.float32()),
    Column("guard", "guard", pa.float32()),
    Column("cell", "cell", pa.uint32()),
    Column("tokens_in", "tokens_in", pa.uint32()),
    Column("tokens_out", "tokens_out", pa.uint32()),
    Column("flags", "flags", pa.uint16()),
    Column("client_tail", "client_tail", pa.binary(CLIENT_TAIL_BYTES)),
)
"""Columns may be added at the end, never changed: readers ignore what follows the ones they know."""


def type_of(column: Column, widths: dict[str, int]) -> pa.DataType:
    return pa.list_(column.type, widths[column.width]) if column.width else column.type


class _Place(NamedTuple):
    """Where a column stands among nodes and buffers. cells : in a row, 0 for one that is no list."""

    attribute: str
    dtype: np.dtype[Any]
    node: int
    buffer: int
    cells: int
    nullable: bool


class BatchLayout:
    """Of all record batches of one width. d : length of `values`; f : of `fields`."""

    def __init__(self, d: int, f: int) -> None:
        widths = {"values": d, "fields": f}
        self._places: list[_Place] = []
        sizes: list[int] = []  # bytes a row, by buffer
        self._letters = nodes = 0
        for column in COLUMNS:
            cells = widths.get(column.width, 0)
            if not column.attribute:
                self._letters = len(sizes) + 2
                sizes += [0, 4, 0]
            elif column.attribute == "client_tail":
                self._place(column, np.dtype(np.uint8), nodes, len(sizes) + 1, CLIENT_TAIL_BYTES)
                sizes += [0, CLIENT_TAIL_BYTES]
            else:
                dtype = np.dtype(column.type.to_pandas_dtype())
                sizes += [0, 0] if column.width else [0]
                self._place(column, dtype, nodes, len(sizes), cells if column.width else -1)
                sizes.append(dtype.itemsize * (cells if column.width else 1))
            nodes += 2 if column.width else 1
        self._sizes = np.array(sizes, np.int64)
        self._nullable = [place for place in self._places if place.nullable]
        self._read_template(_template(widths))
        self._numbers = functools.lru_cache(CACHED_METADATA)(self._numbered)

    def _place(self, column: Column, dtype: np.dtype[Any], node: int, buffer: int, cells: int) -> None:
        self._places.append(_Place(column.attribute, dtype, node, buffer, cells, column.type == pa.float32()))

    def _read_template(self, message: bytes) -> None:
        """Where the numbers stand in the metadata of a batch of one row."""
        root = 8 + struct.unpack_from("<I", message, 8)[0]
        batch = _follow(message, flatbuffer_field(message, root, _MESSAGE_HEADER))
        self._body_at = flatbuffer_field(message, root, _MESSAGE_BODY_LENGTH)
        self._length_at = flatbuffer_field(message, batch, _BATCH_LENGTH)
        self._nodes_at = _follow(message, flatbuffer_field(message, batch, _BATCH_NODES)) + 4
        self._buffers_at = _follow(message, flatbuffer_field(message, batch, _BATCH_BUFFERS)) + 4
        (count,) = struct.unpack_from("<I", message, self._nodes_at - 4)
        self._node_rows = np.frombuffer(message, np.int64, 2 * count, self._nodes_at)[::2].copy()
        self._metadata = message[: 8 + struct.unpack_from("<i", message, 4)[0]]

    def _numbered(self, n: int, nulls: tuple[int, ...], letters: int) -> tuple[bytes, list[int], int]:
        """Metadata of a batch, offsets of its buffers in the body, and the body's length."""
        sizes = self._sizes * n
        sizes[self._letters - 1] += 4
        sizes[self._letters] = letters
        for place, count in zip(self._nullable, nulls, strict=True):
            sizes[place.buffer - 1] = (n + 7) // 8 if count else 0
        padded = (sizes + (ALIGNED - 1)) & -ALIGNED
        ends = np.cumsum(padded)
        offsets = ends - padded
        metadata = bytearray(self._metadata)
        nodes = np.frombuffer(metadata, np.int64, 2 * len(self._node_rows), self._nodes_at)
        nodes[::2] = self._node_rows * n
        for place, count in zip(self._nullable, nulls, strict=True):
            nodes[2 * place.node + 1] = count
        buffers = np.frombuffer(metadata, np.int64, 2 * len(sizes), self._buffers_at)
        buffers[::2], buffers[1::2] = offsets, sizes
        body = int(ends[-1])
        struct.pack_into("<q", metadata, self._length_at, n)
        struct.pack_into("<q", metadata, self._body_at, body)
        return bytes(metadata), offsets.tolist(), body

    def write(self, rows: Rows) -> tuple[bytes, bytes]:
        """Metadata and body of a batch of at least one row."""
        n = rows.count
        empty = {place.attribute: np.isnan(getattr(rows, place.attribute)) for place in self._nullable}
        nulls = tuple(int(np.count_nonzero(mask)) for mask in empty.values())
        metadata, starts, length = self._numbers(n, nulls, len(rows.id_bytes))
        body = np.zeros(length, np.uint8)
        for place in self._places:
            _put(body, starts[place.buffer], np.asarray(getattr(rows, place.attribute), place.dtype))
        for place, count in zip(self._nullable, nulls, strict=True):
            if count:
                _put(body, starts[place.buffer - 1], np.packbits(~empty[place.attribute], bitorder="little"))
        _put(body, starts[self._letters - 1], np.asarray(rows.id_offsets, np.int32))
        _put(body, starts[self._letters], rows.id_bytes)
        return metadata, body.tobytes()

    def read(self, value: bytes, start: int) -> Rows | None:
        """Rows of the batch that begins at `start`, as views of one copy of it; None if we did not write it so.

        Of what only its sender can know to be true, texts and the null slots of floats are looked at.
        """
        if len(value) < start + len(self._metadata):
            return None
        (n,) = struct.unpack_from("<q", value, start + self._length_at)
        (letters,) = struct.unpack_from("<q", value, start + self._buffers_at + 16 * self._letters + 8)
        nulls = tuple(
            struct.unpack_from("<q", value, start + self._nodes_at + 16 * place.node + 8)[0] for place in self._nullable
        )
        if not 0 < n <= len(value) or not 0 <= letters <= len(value):
            return None
        metadata, starts, length = self._numbers(n, nulls, letters)
        begin = start + len(metadata)
        if value[start:begin] != metadata or len(value) < begin + length:
            return None
        body = np.frombuffer(value, np.uint8, length, begin).copy()
        columns: dict[str, Any] = {}
        for place in self._places:
            shape = n if place.cells < 0 else (n, place.cells)
            columns[place.attribute] = np.ndarray(shape, place.dtype, body, starts[place.buffer])
        for place, count in zip(self._nullable, nulls, strict=True):
            if count:
                bits = np.unpackbits(body[starts[place.buffer - 1] :], count=n, bitorder="little")
                if n - int(np.count_nonzero(bits)) != count:
                    return None
                columns[place.attribute][bits == 0] = np.nan
        ids = np.ndarray(n + 1, np.int32, body, starts[self._letters - 1])
        text = body[starts[self._letters] : starts[self._letters] + letters]
        if ids[0] != 0 or ids[-1] != letters or (ids[1:] < ids[:-1]).any() or (text >= 0x80).any():
            return None  # also texts beyond ASCII: whether each is whole, Arrow says
        return Rows(**columns, id_offsets=ids, id_bytes=text)


@functools.lru_cache(CACHED_LAYOUTS)
def layout(d: int, f: int) -> BatchLayout:
    return BatchLayout(d, f)


def _template(widths: dict[str, int]) -> bytes:
    """A batch of one row, as Arrow writes it."""
    fields = [pa.field(column.name, type_of(column, widths)) for column in COLUMNS]
    empty = pa.RecordBatch.from_pylist(
        [{column.name: _something(column, widths) for column in COLUMNS}], schema=pa.schema(fields)
    )
    return bytes(empty.serialize())


def _something(column: Column, widths: dict[str, int]) -> Any:
    if not column.attribute:
        return ""
    if column.attribute == "client_tail":
        return bytes(CLIENT_TAIL_BYTES)
    return [0] * widths[column.width] if column.width else 0


def _put(body: NDArray[np.uint8], start: int, array: NDArray[Any]) -> None:
    body[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _follow(message: bytes, place: int) -> int:
    return int(place + struct.unpack_from("<I", message, place)[0])


def flatbuffer_field(message: bytes, table: int, field: int) -> int:
    """Position of a table's field, 0 if it is absent."""
    directory = table - struct.unpack_from("<i", message, table)[0]
    place = 4 + 2 * field
    if directory < 0 or struct.unpack_from("<H", message, directory)[0] < place + 2:
        return 0
    found = struct.unpack_from("<H", message, directory + place)[0]
    return table + found if found else 0
