"""Sources of history: native record files, archives, a range of a Kafka topic.

A source can be read more than once. It yields batches: raw records of one raw partition, or frames in the order of
their partition. `open_sources` parses what the user wrote.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated

import msgspec
import pyarrow as pa

from streams.adapters.json_text import BYTE_ORDER_MARK, UNREADABLE
from streams.config.config import Config
from streams.history import archive
from streams.history.base import BATCH_RECORDS, FrameBatch, RawBatch, Source, SourceError
from streams.history.merged import MergedFiles
from streams.sketch.elements import LOG_APPEND
from streams.sketch.sketcher import RawRecord

RECORD_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
READ_BYTES = 2**20
BATCH_BYTES = 64 * 2**20
MESSAGE_BYTES_MAX = 100_000_000
"""The most that input.max_message_bytes can allow."""


def open_sources(specs: Sequence[str], config: Config) -> list[Source]:
    """Sources for arguments of the command line. Reads only names and sizes. Several record files become one source.

    specs : files, folders, archives, addresses of topics

    Example: open_sources(["logs/june.jsonl.zst", "kafka://localhost:9092/gateway-logs?from=0"], config)

    Raises SourceError for an argument that is not a source, that does not exist or that is given twice.
    """
    sources: list[Source] = []
    files: list[RecordFile] = []
    for spec in specs:
        if spec.startswith("kafka://"):
            from streams.history.kafka_source import KafkaSource  # only this kind needs a client library

            sources.append(KafkaSource(spec, config))
        else:
            for source in _files(Path(spec), config.input.max_message_bytes):
                if isinstance(source, RecordFile):
                    files.append(source)
                else:
                    sources.append(source)
    seen: set[str] = set()
    for source in (*files, *sources):
        if source.name in seen:
            raise SourceError(f"{source.name}: given twice; positions would not be unique")
        seen.add(source.name)
    return [*(files if len(files) < 2 else [MergedFiles(files, config)]), *sources]


def file_names(source: Source) -> Collection[str]:
    """The raw partitions that files of a source are; none if it is of another kind."""
    if isinstance(source, MergedFiles):
        return {file.name for file in source.files}
    return {source.name} if isinstance(source, RecordFile) else ()


def _files(path: Path, message_bytes_max: int) -> Iterator[Source]:
    if archive.is_archive(path):
        yield ArchiveFolder(path, _text(path.name))
    elif path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _is_history(file)]
        if not files:
            raise SourceError(f"{path}: no {', '.join(RECORD_SUFFIXES)} file in this folder, and no archive")
        yield from (RecordFile(file, _text(file.relative_to(path).as_posix()), message_bytes_max) for file in files)
    elif not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    elif not _is_history(path):
        raise SourceError(
            f"{path}: not a source; expected {', '.join(RECORD_SUFFIXES)}, a folder of them, an archive"
            " (`probewatch archive` makes one), or kafka://host:port/topic?from=OFFSET&to=OFFSET"
        )
    else:
        yield RecordFile(path, _text(path.name), message_bytes_max)


def _is_history(path: Path) -> bool:
    return path.is_file() and path.name.endswith(RECORD_SUFFIXES)


def _text(name: str) -> str:
    """File names are bytes; they become part of events."""
    return name.encode("utf-8", "backslashreplace").decode()


class RecordFile:
    """Native records, one per line. The file is one raw partition: topic = its name, offset = line number from 0.

    Compression is not part of the name, so compressing a file changes no position. A record with
    `"_kafka": {"topic", "partition", "offset", "append_ms"}` (as in the demo's log) keeps that position instead, and,
    if it has one, the time at which the broker appended it.

    message_bytes_max : longer lines are cut to one byte more than this, and then rejected because of their size.
    """

    def __init__(self, path: Path, name: str, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.path = path
        self._message_bytes_max = message_bytes_max
        self.name = next((name.removesuffix(suffix) for suffix in COMPRESSIONS if name.endswith(suffix)), name)
        self.size: int | None = path.stat().st_size

    def batches(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[RawBatch]:
        for lines in self.lines(BATCH_RECORDS, BATCH_BYTES, advance):
            yield from self.split(lines)

    def lines(
        self, records_max: int, bytes_max: int, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[list[tuple[int, bytes]]]:
        """Lines with their numbers, so many at a time, or fewer if they are long."""
        try:
            with self.path.open("rb") as file:
                reported = 0
                stream = _decompressed(file, self.path.suffix)  # keep a reference: closes the file when collected
                for batch in _batched(enumerate(_lines(stream, self._message_bytes_max)), records_max, bytes_max):
                    yield batch
                    advance(file.tell() - reported)
                    reported = file.tell()
        except OSError as error:
            raise SourceError(f"{self.path}: {error}") from error

    @property
    def positioned(self) -> bool:
        """Whether the first record brings its position in Kafka."""
        first = next((line for lines in self.lines(1, 1) for _, line in lines if line.strip()), b"")
        return b'"_kafka"' in first and _place(first.strip()) is not None

    def split(self, lines: list[tuple[int, bytes]]) -> Iterator[RawBatch]:
        """By raw partition, in order of appearance; blank lines are skipped."""
        parts: dict[tuple[str, int], list[RawRecord]] = {}
        for number, line in lines:
            text = line.removeprefix(BYTE_ORDER_MARK).strip()
            if text:
                place = _place(text) if b'"_kafka"' in text else None
                topic, partition, offset, append_ms = place or (self.name, 0, number, 0)
                stamp = (append_ms, LOG_APPEND) if append_ms else (-1, None)
                parts.setdefault((topic, partition), []).append(RawRecord(offset, text, None, (), *stamp))
        for (topic, partition), records in parts.items():
            yield RawBatch(topic, partition, records)


class ArchiveFolder:
    """An archive: partition after partition, as in `requests`."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.archive = _open(path)
        self.size: int | None = self.archive.size

    def batches(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[FrameBatch]:
        yield from self.about((), advance)

    def about(self, clients: Collection[int], advance: Callable[[int], None] = lambda _: None) -> Iterator[FrameBatch]:
        """Only rows of these clients, orders about them and shifts; everything if `clients` is empty."""
        try:
            for partition in self.archive.partitions:
                for read in self.archive.batches(partition, archive.Slice(clients=clients)):
                    yield FrameBatch(read.frames, read.rejects)
                    advance(read.size)
        except archive.ArchiveError as error:
            raise SourceError(str(error)) from error


def _open(path: Path) -> archive.Archive:
    try:
        return archive.open_archive(path)
    except archive.ArchiveError as error:
        raise SourceError(str(error)) from error


class _Place(msgspec.Struct):
    """Within the limits of Kafka."""

    topic: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,249}\Z")]
    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]
    append_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)] = 0


class _Placed(msgspec.Struct):
    place: _Place = msgspec.field(name="_kafka")


_placed = msgspec.json.Decoder(_Placed)


def _place(line: bytes) -> tuple[str, int, int, int] | None:
    """Topic, partition, offset and append time in a record; None if `_kafka` is something else, as in a prompt."""
    try:
        place = _placed.decode(line).place
    except UNREADABLE:
        return None
    return place.topic, place.partition, place.offset, place.append_ms


def _lines(file: IO[bytes], bytes_max: int) -> Iterator[bytes]:
    """Lines, cut after `bytes_max` + 1: a small compressed file may hold a line of gigabytes."""
    while line := file.readline(bytes_max + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(READ_BYTES)


def _batched(lines: Iterable[tuple[int, bytes]], records_max: int, bytes_max: int) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    held = 0
    for number, line in lines:
        batch.append((number, line))
        held += len(line)
        if len(batch) == records_max or held >= bytes_max:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _decompressed(file: IO[bytes], suffix: str) -> IO[bytes]:
    """Arrow's readers: unlike others, they raise OSError for a truncated file of either kind."""
    if suffix not in COMPRESSIONS:
        return file
    stream = pa.CompressedInputStream(pa.PythonFile(file), COMPRESSIONS[suffix])
    return io.BufferedReader(stream, READ_BYTES)
