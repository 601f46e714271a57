"""Files and columns of an archive.

    DIR/archive.json                                          the end of each partition
    DIR/day=YYYY-MM-DD/rows-<partition>-<first offset>.parquet    rows of frames, typed
    DIR/day=YYYY-MM-DD/other-<partition>-<first offset>.parquet   messages without rows: orders, shifts, damage
    DIR/blocks/day=YYYY-MM-DD/<partition>.parquet             judge's state when the archive was written

The day is that of the message's timestamp, UTC. `archive.json` is authoritative: it is updated when files are complete.
Files beyond the ends in it are leftovers of an interrupted run.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa

from models.errors import UserError
from models.rows import COLUMNS, Column
from streams import files
from streams.wire import arrow_rows

SCHEMA = "probewatch.archive/2"
MANIFEST = "archive.json"
BLOCKS = "blocks"
DAY_MS = 86_400_000
ROW_GROUP_ROWS = 65_536

LABELS = ("model", "space", "source_name", "key_id")
_TEXT = pa.dictionary(pa.int32(), pa.string())


def _type_of(column: Column) -> pa.DataType:
    if column.cells in ("text", "tail"):
        return arrow_rows.type_of(column, {})
    number = pa.from_numpy_dtype(column.dtype)
    # without nulls: they make reading a fifth slower
    return pa.list_(pa.field("element", number, nullable=False)) if column.cells else number


ROWS = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("frame_offset", pa.int64(), nullable=False),
        pa.field("frame_ms", pa.int64(), nullable=False),
        *(pa.field(name, _TEXT, nullable=False) for name in LABELS),
        *(pa.field(column.name, _type_of(column), nullable=column.is_nullable) for column in COLUMNS),
    ],
    metadata={"schema": SCHEMA},
)
"""Position of the frame, then the columns of docs/formats/frames.md. frame_ms : timestamp of the message, or -1."""

OTHER = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("frame_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.map_(pa.string(), pa.binary())),
    ],
    metadata={"schema": SCHEMA},
)
STATE = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("block", pa.int32(), nullable=False),
        pa.field("mark", pa.int64(), nullable=False),
        pa.field("value", pa.binary(), nullable=False),
    ],
    metadata={"schema": SCHEMA},
)
BEGIN = b"begin"
"""Key in the metadata of a snapshot: offset from which frames must be folded after loading it."""

_FILE = re.compile(r"(rows|other)-(\d+)-(\d+)\.parquet")


class ArchiveError(UserError, ValueError):
    """A folder is not an archive, or is damaged. The message names the file and what to do."""


class Manifest(msgspec.Struct):
    """The extent of an archive.

    topic : name of `requests`. log_id : topic id, "" if the broker has none. begins, ends : partition -> first offset,
    and the next one to be read. gaps : (partition, first, end) of messages that expired before they were read.
    """

    topic: str
    log_id: str = ""
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    gaps: list[tuple[int, int, int]] = []
    schema: str = SCHEMA


class ArchiveFile(NamedTuple):
    """One file of a partition. first : offset of its first frame. day : such as "2026-03-01"."""

    first: int
    kind: Literal["rows", "other"]
    partition: int
    day: str
    path: Path


def day_of(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


def is_day_before(day: str, other: str) -> bool:
    return (date.fromisoformat(other) - date.fromisoformat(day)).days == 1


def part_path(folder: Path, day: str, kind: str, partition: int, first: int) -> Path:
    return folder / f"day={day}" / f"{kind}-{partition}-{first:020d}.parquet"


def snapshot_path(folder: Path, day: str, partition: int) -> Path:
    return folder / BLOCKS / f"day={day}" / f"{partition}.parquet"


def is_archive(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Raises ArchiveError."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ArchiveError(
            f"{folder}: not an archive: {MANIFEST} is missing (`probewatch archive` creates one)"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise ArchiveError(f"{path}: damaged: {error}; restore it") from error
    if manifest.schema != SCHEMA:
        raise ArchiveError(f"{path}: layout {manifest.schema!r}; this version reads {SCHEMA}")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    files.write_lines(folder / MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest), indent=1)])


def parts(folder: Path, manifest: Manifest) -> Iterator[ArchiveFile]:
    """Files within the extent of the archive, in no particular order."""
    for part in _parts(folder):
        if part.first < manifest.ends.get(part.partition, 0):
            yield part


def leftovers(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of an interrupted run."""
    beyond = [part.path for part in _parts(folder) if part.first >= manifest.ends.get(part.partition, 0)]
    return [*beyond, *folder.glob(f"day=*/*{files.UNFINISHED}"), *folder.glob(f"{BLOCKS}/day=*/*{files.UNFINISHED}")]


def _parts(folder: Path) -> Iterator[ArchiveFile]:
    for path in folder.glob("day=*/*.parquet"):
        name = _FILE.fullmatch(path.name)
        if name is not None:
            kind: Literal["rows", "other"] = "rows" if name[1] == "rows" else "other"
            yield ArchiveFile(int(name[3]), kind, int(name[2]), path.parent.name.removeprefix("day="), path)
