"""Messages of `requests` as they came, and files of them: Parquet with `partition`, `offset` and `value`.

Such files hold frames byte by byte, `key`, `frame_ms` (the message's timestamp) and `headers` beside them if they are
there. The first release archived so; whatever copies a topic to Parquet can write them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streams.history.archive.layout import ArchiveError

BATCH_MESSAGES = 64
_NEEDED = ("partition", "offset", "value")
_BESIDE = ("key", "frame_ms", "headers")


class Message(NamedTuple):
    """One message of `requests`. time_ms : its timestamp, -1 for none."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


def read_messages(path: Path, advance: Callable[[int], None] = lambda _: None) -> Iterator[Message]:
    """In the order written. `advance` is told bytes of values. Raises ArchiveError."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in _NEEDED if name not in names]
            if missing:
                raise ArchiveError(f"{path}: no file of frames: column {missing[0]} is missing")
            columns = [name for name in (*_NEEDED, *_BESIDE) if name in names]
            for batch in file.iter_batches(batch_size=BATCH_MESSAGES, columns=columns):
                for row in batch.to_pylist():
                    yield _message(row)
                advance(batch.column("value").nbytes)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from error


def _message(row: dict[str, object]) -> Message:
    found = {"key": None, "frame_ms": -1, "headers": (), **row}
    named = {("time_ms" if name == "frame_ms" else name): value for name, value in found.items()}
    return Message(**named | {"headers": tuple(named["headers"] or ())})  # type: ignore[arg-type]
