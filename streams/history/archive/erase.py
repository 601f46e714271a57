"""Removes one client from an archive: files are rewritten without its rows and replace the old ones."""

import os
from collections.abc import Collection
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from detector.engine import BlockError, DamagedBlockError
from detector.erasure import erased
from detector.frame import ControlFrame, DecidedFrame
from streams import files
from streams.history.archive import layout
from streams.history.archive.layout import ArchiveError, ArchiveFile
from streams.history.archive.reader import opened
from streams.history.archive.writer import lock
from streams.progress import Reporter
from streams.wire import frames


class Erased(msgspec.Struct, frozen=True):
    """What was removed. orders : about the client. blocks : in snapshots, with its state. files : rewritten."""

    rows: int
    orders: int
    blocks: int
    files: int


def erase(folder: Path, clients: Collection[int], reporter: Reporter) -> Erased:
    """clients : numbers of one client's pseudonyms; two while keys rotate. Can be repeated after an interruption.

    Raises ArchiveError.
    """
    manifest = layout.read_manifest(folder)
    held = lock(folder)
    try:
        for leftover in layout.leftovers(folder, manifest):
            leftover.unlink()
        parts = sorted(layout.parts(folder, manifest))
        snapshots = sorted((folder / layout.BLOCKS).glob("day=*/*.parquet"))
        done = reporter.task(f"files of {folder.name}", len(parts) + len(snapshots))
        counts = {"rows": 0, "other": 0, "blocks": 0}
        files = 0
        for part in parts:
            gone = _rows(part, clients) if part.kind == "rows" else _orders(part, clients)
            counts[part.kind] += gone
            files += gone > 0
            done(1)
        for path in snapshots:
            gone = _blocks(path, clients)
            counts["blocks"] += gone
            files += gone > 0
            done(1)
        return Erased(counts["rows"], counts["other"], counts["blocks"], files)
    finally:
        os.close(held)


def _rows(part: ArchiveFile, clients: Collection[int]) -> int:
    """Row group by row group: a file may be larger than memory."""
    keys = pa.array(sorted(clients), pa.uint64())
    with opened(part.path) as file:
        gone = pc.sum(pc.is_in(file.read(["client"])["client"], keys)).as_py() or 0
        if gone == 0 or gone == file.metadata.num_rows:
            if gone:
                part.path.unlink()
            return int(gone)
        with pq.ParquetWriter(files.unfinished(part.path), layout.ROWS, compression="zstd") as writer:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                kept = table.filter(pc.invert(pc.is_in(table["client"], keys)))
                if kept.num_rows:
                    writer.write_table(kept, row_group_size=kept.num_rows)
    files.finish(part.path)
    return int(gone)


def _orders(part: ArchiveFile, clients: Collection[int]) -> int:
    with opened(part.path) as file:
        table = file.read()
    kept = [not _is_about(part, value, clients) for value in table["value"].to_pylist()]
    gone = kept.count(False)
    _replace(part.path, table, pa.array(kept, pa.bool_()), gone)
    return gone


def _is_about(part: ArchiveFile, value: bytes | None, clients: Collection[int]) -> bool:
    try:
        frame = frames.decode(value or b"", part.partition, 0)
    except frames.FrameError:
        return False
    return isinstance(frame, ControlFrame | DecidedFrame) and frame.client in clients


def _replace(path: Path, table: pa.Table, kept: pa.Array, gone: int) -> None:
    if gone == table.num_rows and gone:
        path.unlink()
    elif gone:
        pq.write_table(table.filter(kept), files.unfinished(path), compression="zstd")
        files.finish(path)


def _blocks(path: Path, clients: Collection[int]) -> int:
    with opened(path) as file:
        table = file.read()
    values: list[bytes] = table["value"].to_pylist()
    gone = 0
    for place, value in enumerate(values):
        try:
            without = erased(value, clients)
        except DamagedBlockError:
            continue  # unreadable for everybody
        except BlockError as error:
            raise ArchiveError(f"{path}: {error}") from error
        if without is not None:
            values[place], gone = without, gone + 1
    if gone:
        column = table.schema.get_field_index("value")
        changed = table.set_column(column, table.schema.field(column), pa.array(values, pa.binary()))
        pq.write_table(changed, files.unfinished(path), compression="zstd")
        files.finish(path)
    return gone
