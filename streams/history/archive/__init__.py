"""The archive: frames of `requests` beyond the topic's retention, as Parquet by day, with snapshots of judge's state.

    open_archive(DIR).batches(partition)   what stood in the topic, as frames: replay folds them as `judge` does
    Writer(DIR, …)                         from messages to files; goes on where it ended
    erase(DIR, client)                     one client's rows, everywhere

docs/archive.md has the columns and queries for DuckDB.
"""

from streams.history.archive.layout import ArchiveError, is_archive
from streams.history.archive.reader import Archive, Slice, Snapshot, open_archive
from streams.history.archive.writer import Writer
from streams.history.base import Message

__all__ = [
    "Archive",
    "ArchiveError",
    "Message",
    "Slice",
    "Snapshot",
    "Writer",
    "is_archive",
    "open_archive",
]
