"""What remains of one model input, as columns: the only thing that travels from `sketch` to `judge`."""

from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Key = TypeVar("Key", np.uint32, np.uint64, np.int64)

CLASSES = ("consumer", "broker", "system")
"""Client classes; a row's `client_class` is the index here. Unknown clients are consumers, the strictest."""

CLASS_MAX = len(CLASSES) - 1

CLIENT_TAIL_BYTES = 9
"""`client` is HMAC bytes 0-7 (big endian), `client_tail` bytes 8-16: together the 130 bits of a published pseudonym."""

UNIT = 2048
"""`values` are fixed point: 2048 = 1.0 in the encoder's standard units, saturating at int16."""

SURPRISAL_UNIT = 16
"""`surprisal` is in 1/16 nat, saturating at 255."""

TIME_MS_MIN, TIME_MS_MAX = -62_135_596_800_000, 221_845_392_000_000
"""Years 1 to 9000: a time that can be written as a date, a few years of decisions on top."""

UNTIMED_MS = 0
"""`time_ms` of a row of which no time could be read, and whose record bears none: its client's clock stands still."""

FLAG_LABEL = 1
FLAG_REFUSED = 2
FLAG_EXPLAIN = 4
FLAG_MEMBER = 8
"""The input is one of the training rows that the model's owner gave."""
FLAG_UNREADABLE = 16
"""Something that the client sent could not be read; what could be read is judged."""
FLAG_UNJUDGED = 32
"""No usable input: only the row's time, tokens and flags mean anything."""
FLAG_UNKNOWN_MODEL = 64
"""The record names no model that was calibrated; the row stands in the space of the first model by name."""
FLAG_AHEAD = 128
"""The record claimed a time further ahead of the broker's than a clock may be; `time_ms` is the bounded one."""


class Rows(NamedTuple):
    """n rows of one space; those of a raw partition in its order.

    Floats marked "or NaN" are null on the wire: NaN stands for "no opinion" only inside arrays, because an array
    has no other way to say it.
    """

    source: U32  # (n,) raw topic + partition + incarnation, hashed
    offset: I64  # (n,) of the raw record
    index: I32  # type: ignore[assignment]  # (n,) of the row in that record; the wire's name hides tuple.index
    client: U64  # (n,)
    client_tail: U8  # (n, 9)
    client_class: U8  # (n,) index into CLASSES
    time_ms: I64  # (n,) event time, ms since 1970
    id_offsets: I32  # (n + 1,) request ids: UTF-8 bytes of row i are id_bytes[id_offsets[i]:id_offsets[i + 1]]
    id_bytes: U8
    exact: U64  # (n,) keyed hash of the whole input
    values: I16  # (n, d) standardised, rotated or projected, in 1/UNIT
    fields: U16  # (n, f) keyed hash of each field's value; f = 0 for embeddings
    surprisal: U8  # (n, f) -log p(value) in 1/SURPRISAL_UNIT nat
    offgrid: U32  # (n,) bitmap, bit min(field, 31)
    output: U32  # (n,) keyed hash of the label, 0 without one
    score: F32  # (n,) or NaN
    margin: F32  # (n,) distance to the decision threshold, or NaN
    novelty: F32  # (n,) or NaN
    guard: F32  # (n,) or NaN
    cell: U32  # (n,) 1 + cell of the reference, 0 without one
    tokens_in: U32  # (n,)
    tokens_out: U32  # (n,)
    flags: U16  # (n,)
    append_ms: I64  # (n,) when the broker appended the record, ms since 1970; 0 where it does not say
    odd: U32  # (n,) bitmap, bit min(field, 31): the field holds what fitted history did not have

    def request_id(self, row: int) -> str:
        start, end = int(self.id_offsets[row]), int(self.id_offsets[row + 1])
        return self.id_bytes[start:end].tobytes().decode("utf-8", "replace")

    @property
    def count(self) -> int:  # type: ignore[override]  # rows, not occurrences
        return len(self.client)


class Column(NamedTuple):
    """One column of Rows: from this table follow frames on the wire, archives and `blank_rows`."""

    name: str  # on the wire and in archives
    dtype: DTypeLike  # of one cell; floats are null on the wire where they are NaN
    cells: Literal["", "values", "fields", "tail", "text"] = ""  # of a row: one, d, f, CLIENT_TAIL_BYTES, UTF-8 letters
    own_attribute: str = ""  # of Rows, where it is called otherwise

    @property
    def attribute(self) -> str:
        """Of Rows; of texts, which have two, that of their letters."""
        return self.own_attribute or self.name

    @property
    def is_nullable(self) -> bool:
        return self.dtype == np.float32


COLUMNS = (
    Column("source", np.uint32),
    Column("offset", np.int64),
    Column("index", np.int32),
    Column("client", np.uint64),
    Column("class", np.uint8, "", "client_class"),
    Column("time_ms", np.int64),
    Column("request_id", np.uint8, "text", "id_bytes"),
    Column("exact", np.uint64),
    Column("values", np.int16, "values"),
    Column("fields", np.uint16, "fields"),
    Column("surprisal", np.uint8, "fields"),
    Column("offgrid", np.uint32),
    Column("output", np.uint32),
    Column("score", np.float32),
    Column("margin", np.float32),
    Column("novelty", np.float32),
    Column("guard", np.float32),
    Column("cell", np.uint32),
    Column("tokens_in", np.uint32),
    Column("tokens_out", np.uint32),
    Column("flags", np.uint16),
    Column("client_tail", np.uint8, "tail"),
    Column("append_ms", np.int64),
    Column("odd", np.uint32),
)
"""In the order of the wire. Columns may be added at the end, never changed: readers ignore unknown ones."""


def blank_rows(n: int, dim: int, fields: int, /, **columns: NDArray[Any]) -> Rows:
    """n rows: zeros, NaN where there is no opinion, no request ids, offsets 0 to n - 1; and `columns`, by attribute."""
    shapes = {"": (n,), "values": (n, dim), "fields": (n, fields), "tail": (n, CLIENT_TAIL_BYTES), "text": (0,)}
    empty = {
        column.attribute: np.full(shapes[column.cells], np.nan if column.is_nullable else 0, column.dtype)
        for column in COLUMNS
    }
    return Rows(**empty | {"id_offsets": np.zeros(n + 1, np.int32), "offset": np.arange(n)} | columns)


def class_of(client_class: int) -> int:
    """The index of a row's class; what lies beyond counts as the last one."""
    return min(CLASS_MAX, int(client_class))


def distinct(values: NDArray[Key]) -> NDArray[Key]:
    """Each value once, rising. Without asking for indices np.unique hashes (since numpy 2.3): far slower for many."""
    return np.unique(values, return_index=True)[0]
