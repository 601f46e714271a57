"""Reads an archive: frames in the order of their partition, and the newest snapshot before a position."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from detector.frame import ControlFrame, Frame, RowFrame
from models.rows import U64, distinct
from streams.history.archive.columns import ColumnGroup
from streams.history.archive.layout import (
    BEGIN,
    BLOCKS,
    ROWS,
    ArchiveError,
    ArchiveFile,
    Manifest,
    parts,
    read_manifest,
)
from streams.wire import frames
from streams.wire.rejects import WHOLE_RECORD, Reject


class Snapshot(NamedTuple):
    """Blocks of one partition's state. begin : offset from which frames must be folded after loading them.

    reached : the furthest mark: from here on the fold gives the live events. blocks : for `engine.load_block`.
    """

    begin: int
    reached: int
    blocks: list[bytes]


class Slice(NamedTuple):
    """Which frames to read. first, last : offsets, both included. since_ms, until_ms : frames with a row of that
    time, until_ms excluded; orders by the timestamp of their message. clients : only their rows, orders about
    them, and shifts of the population; empty for all.
    """

    first: int | None = None
    last: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    clients: Collection[int] = ()

    def holds_offset(self, offset: int) -> bool:
        return (self.first is None or offset >= self.first) and (self.last is None or offset <= self.last)

    def holds_time(self, low_ms: int, high_ms: int) -> bool:
        """Whether any time from low to high, both included, is in the slice."""
        return (self.since_ms is None or high_ms >= self.since_ms) and (self.until_ms is None or low_ms < self.until_ms)


EVERYTHING = Slice()


class ArchiveBatch(NamedTuple):
    """Frames of one partition, offsets rising. rejects : messages that are not frames. size : bytes of files."""

    frames: list[Frame]
    rejects: list[Reject]
    size: int


def open_archive(folder: Path) -> "Archive":
    """Raises ArchiveError if the folder is not an archive."""
    return Archive(folder, read_manifest(folder))


class Archive:
    """The archive as it is when opened; later runs of `archive` do not change it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._parts = sorted(parts(folder, manifest))

    @property
    def partitions(self) -> list[int]:
        """Partitions of which anything was archived."""
        return sorted(self.manifest.ends)

    @property
    def size(self) -> int:
        """Bytes of all files with frames."""
        return sum(part.path.stat().st_size for part in self._parts)

    def frames(
        self,
        partition: int,
        first: int | None = None,
        last: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        client: int | None = None,
    ) -> Iterator[Frame]:
        """Frames of a partition, offsets rising; parameters as in Slice. Messages that are not frames are skipped.

        Raises ArchiveError.
        """
        for read in self.batches(
            partition, Slice(first, last, since_ms, until_ms, () if client is None else (client,))
        ):
            yield from read.frames

    def batches(self, partition: int, wanted: Slice = EVERYTHING) -> Iterator[ArchiveBatch]:
        """The same by row groups, with rejects. Raises ArchiveError."""
        files = [part for part in self._parts if part.partition == partition]
        others = _Others([part for part in files if part.kind == "other"], wanted)
        for part in (part for part in files if part.kind == "rows"):
            for group in _groups(part, wanted):
                yield others.merged(group.frames, group.last, group.size)
        yield others.merged([], None, 0)

    def snapshot(
        self, partition: int, before_offset: int | None = None, before_ms: int | None = None
    ) -> Snapshot | None:
        """The newest snapshot after which no frame is missing in the archive; None if there is none.

        before_offset : the snapshot must not go beyond it. before_ms : nor beyond the first frame with a row of that
        time or later. Raises ArchiveError.
        """
        limit = before_offset
        if before_ms is not None:
            at = self.offset_at(partition, before_ms)
            limit = at if limit is None else limit if at is None else min(limit, at)
        paths = sorted((self.folder / BLOCKS).glob(f"day=*/{partition}.parquet"), reverse=True)
        for path in paths:
            snapshot = _snapshot(path)
            if (limit is None or snapshot.reached <= limit) and self.is_whole(partition, snapshot.begin):
                return snapshot
        return None

    def is_whole(self, partition: int, first: int) -> bool:
        """Whether no frame is missing from this offset to the end of the archive."""
        begin = self.manifest.begins.get(partition)
        gaps = (end for number, _, end in self.manifest.gaps if number == partition)
        return begin is not None and begin <= first <= self.manifest.ends[partition] and max(gaps, default=0) <= first

    def offset_at(self, partition: int, time_ms: int) -> int | None:
        """Offset of the first frame with a row of this time or later; None if there is none."""
        for part in self._parts:
            if part.partition == partition and part.kind == "rows":
                with opened(part.path) as file:
                    for number in range(file.num_row_groups):
                        if _bounds(file, number, "time_ms")[1] >= time_ms:
                            table = file.read_row_group(number, ["frame_offset", "time_ms"], use_threads=False)
                            late = table.filter(pc.greater_equal(table["time_ms"], time_ms))
                            return int(late["frame_offset"][0].as_py())
        return None

    def offset_behind(self, partition: int, time_ms: int) -> int | None:
        """Offset of the last frame with a row before this time; None if there is none."""
        for part in reversed(self._parts):
            if part.partition == partition and part.kind == "rows":
                with opened(part.path) as file:
                    for number in reversed(range(file.num_row_groups)):
                        if _bounds(file, number, "time_ms")[0] < time_ms:
                            table = file.read_row_group(number, ["frame_offset", "time_ms"], use_threads=False)
                            early = table.filter(pc.less(table["time_ms"], time_ms))
                            return int(early["frame_offset"][-1].as_py())
        return None

    def ordered(self, partition: int, first: int, last: int | None) -> set[int]:
        """Clients with orders between these offsets, both included."""
        wanted = Slice(first, last)
        files = [part for part in self._parts if part.partition == partition and part.kind == "other"]
        frames = (frame for part in files for _, frame in _other(part, wanted))
        return {frame.client for frame in frames if isinstance(frame, ControlFrame)}

    def request(self, name: str) -> tuple[int, str] | None:
        """The client and the model of the first row with this request id. Raises ArchiveError."""
        for table in self._columns(["request_id", "client", "model"]):
            rows = table.filter(pc.equal(table["request_id"], name))
            if rows.num_rows:
                return int(rows["client"][0].as_py()), str(rows["model"][0].as_py())
        return None

    def holds(self, clients: Collection[int]) -> bool:
        """Whether any row belongs to one of these clients. Raises ArchiveError."""
        keys = pa.array(sorted(clients), pa.uint64())
        return any(pc.any(pc.is_in(table["client"], keys)).as_py() for table in self._columns(["client"]))

    def clients_between(self, since_ms: int, until_ms: int, client_class: int) -> U64:
        """Clients of a class with a row in that time, until_ms excluded; rising. Raises ArchiveError."""
        clients = [np.zeros(0, np.uint64)]
        for table in self._columns(["client", "class", "time_ms"], Slice(since_ms=since_ms, until_ms=until_ms)):
            client, of_class, time_ms = (table[name].to_numpy() for name in ("client", "class", "time_ms"))
            clients.append(distinct(client[(of_class == client_class) & (time_ms >= since_ms) & (time_ms < until_ms)]))
        return distinct(np.concatenate(clients))

    def _columns(self, names: list[str], wanted: Slice = EVERYTHING) -> Iterator[pa.Table]:
        """By row group; groups without a row in the time of the slice are skipped."""
        for part in self._parts:
            if part.kind == "rows":
                with opened(part.path) as file:
                    for number in range(file.num_row_groups):
                        if wanted.holds_time(*_bounds(file, number, "time_ms")):
                            yield file.read_row_group(number, names, use_threads=False)


class _Others:
    """Merges messages without rows between the frames with rows."""

    def __init__(self, files: list[ArchiveFile], wanted: Slice) -> None:
        self._waiting: list[tuple[int, Frame | Reject]] = []
        self._size = sum(part.path.stat().st_size for part in files)
        for part in files:
            self._waiting += _other(part, wanted)
        self._waiting.reverse()  # the next one last

    def merged(self, group: list[Frame], until: int | None, size: int) -> ArchiveBatch:
        """Frames, with the messages before offset `until`; None for all that are left."""
        due: list[tuple[int, Frame | Reject]] = []
        while self._waiting and (until is None or self._waiting[-1][0] < until):
            due.append(self._waiting.pop())
        others: list[Frame] = [message for _, message in due if not isinstance(message, Reject)]
        merged = sorted([*group, *others], key=lambda frame: frame.offset) if others else group
        size, self._size = size + self._size, 0
        return ArchiveBatch(merged, [message for _, message in due if isinstance(message, Reject)], size)


def _other(part: ArchiveFile, wanted: Slice) -> Iterator[tuple[int, Frame | Reject]]:
    with opened(part.path) as file:
        table = file.read(["offset", "frame_ms", "value"], use_threads=False)
    for offset, time_ms, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if not wanted.holds_offset(offset) or not wanted.holds_time(time_ms, time_ms):
            continue
        try:
            frame = frames.decode(value or b"", part.partition, offset)
        except frames.FrameError as error:
            if not wanted.clients:
                position = (part.path.name, part.partition, offset, WHOLE_RECORD)
                yield offset, Reject(*position, "record", "a frame or a control order", str(error), "malformed")
            continue
        if not wanted.clients or not isinstance(frame, ControlFrame) or frame.client in wanted.clients:
            yield offset, frame


class _RowGroup(NamedTuple):
    """Frames of a row group in the slice. last : offset of its last frame, in the slice or not. size : bytes passed."""

    frames: list[Frame]
    last: int
    size: int


def _groups(part: ArchiveFile, wanted: Slice) -> Iterator[_RowGroup]:
    size = 0
    with opened(part.path) as file:
        for number in range(file.num_row_groups):
            columns = file.metadata.row_group(number)
            size += sum(columns.column(i).total_compressed_size for i in range(columns.num_columns))
            low, high = _bounds(file, number, "frame_offset")
            outside = (wanted.first is not None and high < wanted.first) or (
                wanted.last is not None and low > wanted.last
            )
            if outside or not wanted.holds_time(*_bounds(file, number, "time_ms")):
                continue
            table = _rows_of(file, number, wanted)
            if table.num_rows:
                group = ColumnGroup(table, f"{part.path}, row group {number}")
                yield _RowGroup([frame for frame in group.frames() if _is_wanted(frame, wanted)], high, size)
                size = 0


def _rows_of(file: pq.ParquetFile, number: int, wanted: Slice) -> pa.Table:
    if not wanted.clients:
        return file.read_row_group(number, use_threads=False)
    keys = pa.array(sorted(wanted.clients), pa.uint64())
    ours = pc.is_in(file.read_row_group(number, ["client"], use_threads=False)["client"], keys)
    if not pc.any(ours).as_py():
        return ROWS.empty_table()
    return file.read_row_group(number, use_threads=False).filter(ours)


def _is_wanted(frame: RowFrame, wanted: Slice) -> bool:
    if not wanted.holds_offset(frame.offset):
        return False
    times = frame.rows.time_ms
    if wanted.since_ms is None and wanted.until_ms is None:
        return True
    return bool(
        ((times >= (wanted.since_ms or 0)) & (times < (2**62 if wanted.until_ms is None else wanted.until_ms))).any()
    )


def _bounds(file: pq.ParquetFile, number: int, name: str) -> tuple[int, int]:
    statistics = file.metadata.row_group(number).column(ROWS.get_field_index(name)).statistics
    return statistics.min, statistics.max


def _snapshot(path: Path) -> Snapshot:
    with opened(path) as file:
        table = file.read(["mark", "value"], use_threads=False)
        begin = int((file.schema_arrow.metadata or {})[BEGIN])
    marks = table["mark"].to_pylist()
    return Snapshot(begin, max([begin, *marks]), table["value"].to_pylist())


def opened(path: Path) -> pq.ParquetFile:
    """A file of an archive. Raises ArchiveError."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from error
