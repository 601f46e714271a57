"""From messages of `requests` to the files of an archive.

A file gets its name when it is complete, and belongs to the archive once `archive.json` includes it. After an
interruption the next run resumes there, and removes leftovers.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from detector.frame import RowFrame
from models import private
from streams import files
from streams.history.archive import layout
from streams.history.archive.columns import table_of
from streams.history.archive.layout import ArchiveError, Manifest
from streams.history.base import Message
from streams.wire import frames

FILE_ROWS = 2_000_000
"""Rows after which a file is closed: the most that has to be read again after an interruption."""

FILE_OTHERS = 20_000


class Writer:
    """Use as a context. Messages come partition by partition, offsets rising, from the offset that `begin` returns.

    Raises ArchiveError if the folder belongs to another topic, or another process writes to it.
    """

    def __init__(self, folder: Path, topic: str, log_id: str = "") -> None:
        private.folder(folder)
        self.folder = folder
        self._lock = lock(folder)
        try:
            self.manifest = _manifest(folder, topic, log_id)
        except ArchiveError:
            os.close(self._lock)
            raise
        self._files: _Files | None = None
        self.messages = self.rows = 0

    def begin(self, partition: int, first: int) -> int:
        """Offset to read a partition from: `first`, or the end of the archive if that is later.

        Messages between the end of the archive and `first` are recorded as a gap.
        """
        end = self.manifest.ends.get(partition)
        if end is None:
            self.manifest.begins[partition] = self.manifest.ends[partition] = end = first
        elif end < first:
            self.manifest.gaps.append((partition, end, first))
            self.manifest.ends[partition] = end = first
        return max(first, end)

    def add(self, message: Message) -> None:
        """Raises ArchiveError if the archive is already beyond this offset."""
        end = self.manifest.ends.get(message.partition)
        if end is None or message.offset < end:
            raise ArchiveError(f"partition {message.partition}: offset {message.offset} is out of order")
        frame = _row_frame(message)
        day = _day(message, frame, self._files)
        if self._files is None or not self._files.go_on(message.partition, day):
            self.finish()
            self._files = _Files(self.folder, message.partition, day)
        self._files.add(message, frame)
        self.messages += 1
        self.rows += frame.rows.count if frame is not None else 0

    def finish(self, end: int = 0) -> None:
        """Close open files. end : offset until which their partition was read, if beyond the last message."""
        if self._files is not None:
            files, self._files = self._files, None
            files.close()
            self.manifest.ends[files.partition] = max(end, files.next)
            layout.write_manifest(self.folder, self.manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
            layout.write_manifest(self.folder, self.manifest)
        elif self._files is not None:
            self._files.drop()
        os.close(self._lock)


def lock(folder: Path) -> int:
    """Lock a folder until the returned descriptor is closed. Raises ArchiveError if another process holds the lock."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise ArchiveError(f"{folder}: another process is writing to this archive; wait for it to end") from None
    return held


def _manifest(folder: Path, topic: str, log_id: str) -> Manifest:
    if not layout.is_archive(folder):
        if any(folder.iterdir()):
            raise ArchiveError(f"{folder}: neither empty nor an archive; choose another folder")
        return Manifest(topic, log_id)
    manifest = layout.read_manifest(folder)
    for leftover in layout.leftovers(folder, manifest):
        leftover.unlink()
    if manifest.topic != topic or (manifest.log_id and log_id and manifest.log_id != log_id):
        what = f"the topic {manifest.topic}" if manifest.topic != topic else f"{topic} before it was re-created"
        raise ArchiveError(f"{folder}: an archive of {what}; offsets would mix: choose another folder")
    return manifest


def _row_frame(message: Message) -> RowFrame | None:
    """The frame, if it has rows."""
    try:
        frame = frames.decode(message.value or b"", message.partition, message.offset)
    except frames.FrameError:
        return None
    return frame if isinstance(frame, RowFrame) and frame.rows.count else None


def _day(message: Message, frame: RowFrame | None, files: "_Files | None") -> str:
    if message.time_ms >= 0:
        return layout.day_of(message.time_ms)
    if frame is not None:
        return layout.day_of(int(frame.rows.time_ms[-1]))
    return files.day if files is not None and files.partition == message.partition else layout.day_of(0)


class _Files:
    """Open files of one partition and day. next : offset after the last message."""

    def __init__(self, folder: Path, partition: int, day: str) -> None:
        self.partition = partition
        self.day = day
        self.next = 0
        self._folder = folder
        self._pending: list[tuple[RowFrame, int]] = []
        self._pending_rows = self._rows = 0
        self._others: list[Message] = []
        self._first: int | None = None
        self._writer: pq.ParquetWriter | None = None

    def go_on(self, partition: int, day: str) -> bool:
        """Whether the next message belongs here. A producer whose clock is slightly behind at midnight opens no new
        file."""
        same_day = day == self.day or layout.is_day_before(day, self.day)
        return partition == self.partition and same_day and self._rows < FILE_ROWS and len(self._others) < FILE_OTHERS

    def add(self, message: Message, frame: RowFrame | None) -> None:
        self.next = message.offset + 1
        if frame is None:
            self._others.append(message)
            return
        if self._first is None:
            self._first = message.offset
        self._pending.append((frame, message.time_ms))
        self._pending_rows += frame.rows.count
        self._rows += frame.rows.count
        if self._pending_rows >= layout.ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        batch = table_of(self._pending)
        if self._writer is None:
            self._writer = pq.ParquetWriter(files.unfinished(self._path("rows")), layout.ROWS, compression="zstd")
        self._writer.write_batch(batch, row_group_size=batch.num_rows)
        self._pending, self._pending_rows = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            files.finish(self._path("rows"))
        if self._others:
            path = self._path("other")
            pq.write_table(_table(self._others), files.unfinished(path), compression="zstd")
            files.finish(path)

    def drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            files.discard(self._path("rows"))

    def _path(self, kind: str) -> Path:
        first = self._first if kind == "rows" else self._others[0].offset
        assert first is not None
        return layout.part_path(self._folder, self.day, kind, self.partition, first)


def _table(messages: list[Message]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "partition": [message.partition for message in messages],
        "offset": [message.offset for message in messages],
        "frame_ms": [message.time_ms for message in messages],
        "key": [message.key for message in messages],
        "value": [message.value for message in messages],
        "headers": [list(message.headers) for message in messages],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in layout.OTHER], schema=layout.OTHER)
