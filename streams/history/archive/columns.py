"""Rows of many frames as one Arrow table, and back. Whole columns are moved, without Python code per row."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from detector.frame import RowFrame, label, named
from models.rows import CLASSES, CLIENT_TAIL_BYTES, COLUMNS, I64, TIME_MS_MAX, TIME_MS_MIN, Rows, distinct
from streams.history.archive.layout import LABELS, ROWS, ArchiveError

_PLAIN = [column for column in COLUMNS if not column.cells]
_LISTS = [column.name for column in COLUMNS if column.cells in ("values", "fields")]


def table_of(frames: Sequence[tuple[RowFrame, int]]) -> pa.RecordBatch:
    """Frames with rows, each with its message's timestamp, in ms, as one record batch of layout.ROWS."""
    rows = [frame.rows for frame, _ in frames]
    counts = np.array([part.count for part in rows])
    first = frames[0][0]
    columns: dict[str, pa.Array] = {
        "partition": pa.array(np.full(int(counts.sum()), first.partition, np.int32)),
        "frame_offset": pa.array(np.repeat(np.array([frame.offset for frame, _ in frames], np.int64), counts)),
        "frame_ms": pa.array(np.repeat(np.array([time_ms for _, time_ms in frames], np.int64), counts)),
        "request_id": _texts(rows),
        "client_tail": _tails(rows),
    }
    for name in (name for name in LABELS if name != "source_name"):
        columns[name] = _labels([getattr(frame, name) for frame, _ in frames], counts)
    columns["source_name"] = _source_names([frame for frame, _ in frames])
    for name in _LISTS:
        columns[name] = _lists([getattr(part, name) for part in rows], counts, ROWS.field(name).type)
    for column in _PLAIN:
        joined = np.concatenate([getattr(part, column.attribute) for part in rows])
        columns[column.name] = pa.array(joined, from_pandas=column.is_nullable)
    return pa.RecordBatch.from_arrays([columns[name] for name in ROWS.names], schema=ROWS)


def _texts(rows: Sequence[Rows]) -> pa.Array:
    lengths = np.concatenate([np.diff(part.id_offsets) for part in rows])
    letters = np.concatenate([part.id_bytes[part.id_offsets[0] : part.id_offsets[-1]] for part in rows])
    return pa.Array.from_buffers(
        pa.string(), len(lengths), [None, pa.py_buffer(_offsets(lengths)), pa.py_buffer(letters)]
    )


def _tails(rows: Sequence[Rows]) -> pa.Array:
    tails = np.concatenate([part.client_tail for part in rows])
    return pa.Array.from_buffers(pa.binary(CLIENT_TAIL_BYTES), len(tails), [None, pa.py_buffer(tails)])


def _labels(texts: Sequence[str], counts: I64) -> pa.Array:
    distinct = list(dict.fromkeys(texts))
    places = np.array([distinct.index(text) for text in texts], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(np.repeat(places, counts)), pa.array(distinct, pa.string()))


def _source_names(frames: Sequence[RowFrame]) -> pa.Array:
    """For each row, also if the frame's label names several sources."""
    numbers: dict[str, int] = {}
    places = []
    for frame in frames:
        met, where = np.unique(frame.rows.source, return_inverse=True)
        known = named(frame.source_name)
        names = [known.get(source, frame.source_name) for source in met.tolist()]
        places.append(np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)[where])
    return pa.DictionaryArray.from_arrays(pa.array(np.concatenate(places)), pa.array(list(numbers), pa.string()))


def _lists(cells: Sequence[NDArray[Any]], counts: I64, kind: pa.DataType) -> pa.Array:
    lengths = np.repeat(np.array([part.shape[1] for part in cells], np.int32), counts)
    flat = np.concatenate([part.ravel() for part in cells])
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), pa.array(flat), type=kind)


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])


class ColumnGroup:
    """The rows of one row group as arrays with the layout that kernels need: aligned, writable, contiguous.

    starts : (frames + 1,) row at which each frame begins, and the end. Raises ArchiveError for impossible rows.
    """

    def __init__(self, table: pa.Table, place: str) -> None:
        self._columns: dict[str, NDArray[Any]] = {}
        self._lists: dict[str, tuple[NDArray[Any], NDArray[np.int32]]] = {}
        batch = table.combine_chunks()
        for column in _PLAIN:
            self._columns[column.attribute] = _numbers(batch.column(column.name), ROWS.field(column.name).type)
        self._columns["client_tail"] = _fixed(batch.column("client_tail"))
        self._labels = {name: _indices(batch.column(name)) for name in LABELS}
        self._texts = _letters(batch.column("request_id"))
        for name in _LISTS:
            self._lists[name] = _cells(batch.column(name))
        offsets = _numbers(batch.column("frame_offset"), pa.int64())
        self.frame_ms = _numbers(batch.column("frame_ms"), pa.int64())
        self.partition = int(batch.column("partition")[0].as_py())
        self.starts: I64 = np.concatenate([[0], np.flatnonzero(np.diff(offsets)) + 1, [len(offsets)]])
        self.offsets = offsets[self.starts[:-1]]
        self._several = self._named_sources()
        self._check(place)

    def _check(self, place: str) -> None:
        columns, starts = self._columns, self.starts[:-1]
        counts = np.diff(self.starts)
        sound = (
            bool((np.diff(self.offsets) > 0).all())
            and int(columns["client_class"].max()) < len(CLASSES)
            and int(columns["time_ms"].min()) >= TIME_MS_MIN
            and int(columns["time_ms"].max()) < TIME_MS_MAX
            and int(columns["append_ms"].min()) >= 0
            and int(columns["append_ms"].max()) < TIME_MS_MAX
            and all(_is_one_to_one(pairs) for pairs in self._several.values())
        )
        for _, ends in self._lists.values():
            widths = np.diff(ends)
            sound = sound and bool((widths == np.repeat(widths[starts], counts)).all())
        if not sound:
            raise ArchiveError(f"{place}: damaged: rows that no frame can have held; archive this range again")

    def _named_sources(self) -> dict[int, list[tuple[int, str]]]:
        """For frames with several sources: number of the frame -> sources and their names, by source."""
        places, names = self._labels["source_name"]
        pairs = self._columns["source"].astype(np.uint64) << np.uint64(32) | places.astype(np.uint64)
        starts = self.starts[:-1]
        mixed = np.maximum.reduceat(pairs != np.repeat(pairs[starts], np.diff(self.starts)), starts)
        sources = {}
        for number in np.flatnonzero(mixed).tolist():
            of_frame = distinct(pairs[self.starts[number] : self.starts[number + 1]]).tolist()
            sources[number] = [(pair >> 32, names[pair & 0xFFFFFFFF]) for pair in of_frame]
        return sources

    def frames(self) -> Iterator[RowFrame]:
        """In the order of their offsets."""
        for number in range(len(self.offsets)):
            yield self.frame(number)

    def frame(self, number: int) -> RowFrame:
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        labels = [names[places[start]] for places, names in self._labels.values()]
        if number in self._several:
            labels[LABELS.index("source_name")] = label(dict(self._several[number]))
        columns = {name: column[start:end] for name, column in self._columns.items()}
        for name, (cells, ends) in self._lists.items():
            columns[name] = cells[ends[start] : ends[end]].reshape(end - start, int(ends[start + 1] - ends[start]))
        letters, ends = self._texts
        columns["id_offsets"] = ends[start : end + 1] - ends[start]
        columns["id_bytes"] = letters[ends[start] : ends[end]]
        return RowFrame(
            self.partition, int(self.offsets[number]), labels[0], labels[1], labels[2], labels[3], Rows(**columns)
        )


def _is_one_to_one(pairs: Sequence[tuple[int, str]]) -> bool:
    return len({source for source, _ in pairs}) == len({name for _, name in pairs}) == len(pairs)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _numbers(column: pa.ChunkedArray, kind: pa.DataType) -> NDArray[Any]:
    return np.array(column.to_numpy(), kind.to_pandas_dtype())


def _fixed(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    array = _whole(column)
    cells = np.frombuffer(array.buffers()[1], np.uint8)
    first = array.offset * CLIENT_TAIL_BYTES
    return cells[first : first + len(array) * CLIENT_TAIL_BYTES].reshape(-1, CLIENT_TAIL_BYTES).copy()


def _indices(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    array = _whole(column)
    return array.indices.to_numpy(), array.dictionary.to_pylist()


def _letters(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    array = _whole(column)
    ends = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
    return np.frombuffer(array.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]].copy(), ends - ends[0]


def _cells(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Flat values, and the start of each cell."""
    array = _whole(column)
    ends = np.array(array.offsets.to_numpy(), np.int32)
    flat = np.array(array.values.to_numpy()[ends[0] : ends[-1]])
    return flat, ends - ends[0]
