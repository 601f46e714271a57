"""Columns of rows as Arrow types, from the table in models/rows.py, and rows of any Arrow record batch.

Columns are read through the buffers of the whole batch, never as arrays: Arrow makes an object of each array.
"""

import functools
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.rows import CLIENT_TAIL_BYTES, COLUMNS, Column, Rows

CACHED_SCHEMAS = 64
_CONTINUATION = 0xFFFFFFFF
_MESSAGE_HEADER, _BATCH_COMPRESSION = 2, 3
"""Fields of tables in Arrow's format/Message.fbs."""


class BatchError(ValueError):
    """A record batch that holds no rows of ours. Says why."""


def type_of(column: Column, widths: Mapping[str, int]) -> pa.DataType:
    """widths : of the lists `values` and `fields`."""
    if column.cells == "text":
        return pa.string()
    if column.cells == "tail":
        return pa.binary(CLIENT_TAIL_BYTES)
    number = pa.from_numpy_dtype(column.dtype)
    return pa.list_(number, widths[column.cells]) if column.cells else number


def schema_of(widths: Mapping[str, int]) -> pa.Schema:
    return _schema(widths["values"], widths["fields"])


@functools.lru_cache(CACHED_SCHEMAS)
def _schema(d: int, f: int) -> pa.Schema:
    widths = {"values": d, "fields": f}
    return pa.schema([pa.field(c.name, type_of(c, widths), nullable=c.is_nullable) for c in COLUMNS])


def rows_of(batch: pa.RecordBatch, widths: Mapping[str, int]) -> Rows:
    """The rows of a batch whose schema begins with `schema_of(widths)`. Raises BatchError, and what Arrow raises.

    Arrays are copies: aligned, writable and of one layout, so that kernels compile once.
    """
    batch.validate(full=True)
    buffers = iter(batch.to_struct_array().buffers())
    next(buffers)  # the validity of whole rows
    columns: dict[str, NDArray[Any]] = {}
    for column in COLUMNS:
        if column.cells == "text":
            columns["id_offsets"], columns["id_bytes"] = _texts(buffers, batch.num_rows)
        else:
            columns[column.attribute] = _cells(buffers, batch.num_rows, column, widths)
    return Rows(**columns)


def _cells(buffers: Iterator[pa.Buffer | None], n: int, column: Column, widths: Mapping[str, int]) -> NDArray[Any]:
    validity = next(buffers)
    width = CLIENT_TAIL_BYTES if column.cells == "tail" else widths.get(column.cells, 1)
    if column.cells in widths:
        _refuse_nulls(next(buffers), n * width)
    cells = np.frombuffer(next(buffers) or b"", column.dtype, n * width).copy()
    if not column.is_nullable:
        _refuse_nulls(validity, n)
    elif validity is not None:
        cells[np.unpackbits(np.frombuffer(validity, np.uint8), count=n, bitorder="little") == 0] = np.nan
    return cells.reshape(n, width) if column.cells else cells


def _texts(buffers: Iterator[pa.Buffer | None], n: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Offsets from 0, and the letters between the first and the last of them."""
    _refuse_nulls(next(buffers), n)
    offsets, letters = next(buffers), next(buffers)
    if n == 0 or offsets is None:
        return np.zeros(n + 1, np.int32), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32, n + 1)
    return ends - ends[0], np.frombuffer(letters or b"", np.uint8)[ends[0] : ends[-1]].copy()


def _refuse_nulls(validity: pa.Buffer | None, n: int) -> None:
    if validity is not None and not np.unpackbits(np.frombuffer(validity, np.uint8), count=n, bitorder="little").all():
        raise BatchError("nulls in a column that has none")


def refuse_compression(value: bytes, start: int) -> None:
    """Raises BatchError for a compressed record batch at `start`: its buffers state their own expanded size, which
    nothing bounds. We never write such.

    Reads two tables of the message's flatbuffer; Arrow verifies the rest when it reads the batch.
    """
    if struct.unpack_from("<I", value, start)[0] != _CONTINUATION:
        raise BatchError("no record batch after the schema")
    root = start + 8
    header = flatbuffer_field(value, root + struct.unpack_from("<I", value, root)[0], _MESSAGE_HEADER)
    if not header:
        raise BatchError("a message without content")
    if flatbuffer_field(value, header + struct.unpack_from("<I", value, header)[0], _BATCH_COMPRESSION):
        raise BatchError("compressed record batches are not read")


def flatbuffer_field(message: bytes, table: int, field: int) -> int:
    """Position of a field of a flatbuffer's table, 0 if it is absent."""
    directory = table - struct.unpack_from("<i", message, table)[0]
    place = 4 + 2 * field
    if directory < 0 or struct.unpack_from("<H", message, directory)[0] < place + 2:
        return 0
    offset = struct.unpack_from("<H", message, directory + place)[0]
    return table + offset if offset else 0
