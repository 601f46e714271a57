"""The frame archive: messages of `requests` in Parquet, as they were; DuckDB can query it and replay can read it.

Columns: partition int32, offset int64, key binary, value binary. Rows stand in the order in which they were read;
inside a partition offsets rise.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from streams.archive.layout import ArchiveError

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary(), nullable=False),
    ],
    metadata={"schema": "probewatch.archive/1"},
)
ROW_GROUP_BYTES = 16 * 2**20


class Message(NamedTuple):
    """One message of `requests`."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


class ArchiveWriter:
    """Writes one archive file; it appears under its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + ".unfinished")
        self._writer = pq.ParquetWriter(self._unfinished, SCHEMA, compression="zstd")
        self._pending: list[Message] = []
        self._pending_bytes = 0
        self.messages = 0

    def add(self, message: Message) -> None:
        self._pending.append(message)
        self._pending_bytes += len(message.value)
        self.messages += 1
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._pending, strict=True), SCHEMA, strict=True)
            ]
            self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._unfinished.replace(self._path)
        else:
            self._unfinished.unlink(missing_ok=True)


def read_archive(path: Path, batch_messages: int = 64) -> Iterator[list[Message]]:
    """The messages of an archive file in the order written. Raises ArchiveError."""
    try:
        with pq.ParquetFile(path) as file:
            missing = set(SCHEMA.names) - set(file.schema_arrow.names)
            if missing:
                raise ArchiveError(f"{path}: not a frame archive: column {min(missing)} is missing")
            for batch in file.iter_batches(batch_size=batch_messages, columns=SCHEMA.names):
                yield [Message(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from error
