"""The record batch of a row frame as we write it: Arrow's layout, without Arrow's objects.

Of a frame with few rows nearly all of the cost is the objects that Arrow makes of its columns: with pyarrow alone a
worker needs 15 % more processor time at 62 rows a frame (docs/adr/0015-frames-without-arrows-objects.md). So the
metadata of a batch is a copy of one that Arrow wrote, with other numbers; a batch whose metadata is byte for byte what
this module writes is read in place. Every other batch is left to Arrow.

Arrow columnar format 1.5, "Serialization and Interprocess Communication"; format/Message.fbs.
"""

import functools
import struct
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.rows import CLIENT_TAIL_BYTES, COLUMNS, Column, Rows
from streams.wire.arrow_rows import flatbuffer_field, schema_of

ALIGNED = 8
CACHED_LAYOUTS = 64
CACHED_METADATA = 1_024
"""Of a layout; one takes 1.3 kB. Frames of as many rows, whose request ids are as long, have the same."""

_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 2, 3
_BATCH_LENGTH, _BATCH_NODES, _BATCH_BUFFERS = 0, 1, 2


class _Place(NamedTuple):
    """Where a column stands among nodes and buffers. cells : in a row, -1 for a single value."""

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
            is_list = column.cells in widths
            if column.cells == "text":
                self._letters = len(sizes) + 2
                sizes += [0, 4, 0]
            else:
                width = CLIENT_TAIL_BYTES if column.cells == "tail" else widths.get(column.cells, -1)
                dtype = np.dtype(column.dtype)
                sizes += [0, 0] if is_list else [0]
                place = _Place(column.attribute, dtype, nodes, len(sizes), width, column.is_nullable)
                self._places.append(place)
                sizes.append(dtype.itemsize * (width if width >= 0 else 1))
            nodes += 2 if is_list else 1
        self._sizes = np.array(sizes, np.int64)
        self._nullable = [place for place in self._places if place.nullable]
        self._read_template(_template(widths))
        self._numbers = functools.lru_cache(CACHED_METADATA)(self._numbered)

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
    row = {column.name: _something(column, widths) for column in COLUMNS}
    empty = pa.RecordBatch.from_pylist([row], schema=schema_of(widths))
    return bytes(empty.serialize())


def _something(column: Column, widths: dict[str, int]) -> Any:
    if column.cells == "text":
        return ""
    if column.cells == "tail":
        return bytes(CLIENT_TAIL_BYTES)
    return [0] * widths[column.cells] if column.cells else 0


def _put(body: NDArray[np.uint8], start: int, array: NDArray[Any]) -> None:
    body[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _follow(message: bytes, place: int) -> int:
    return int(place + struct.unpack_from("<I", message, place)[0])
