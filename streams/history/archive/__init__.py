"""The archive: frames of `requests` beyond the topic's retention, as Parquet by day, with snapshots of judge's state.

    open_archive(DIR).batches(partition)   the messages of the topic, as frames
    Writer(DIR, …)                         from messages to files; resumes at the end of the archive
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
