"""Frames by partition: from where a fold needs them, and with which state it begins there."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from streams.config.config import Config
from streams.history.archive import Archive, ArchiveError
from streams.history.archive.reader import Slice
from streams.history.base import FrameBatch, Source, SourceError
from streams.history.sources import ArchiveFolder
from streams.replay.selection import Selection

if TYPE_CHECKING:
    from streams.history.kafka_source import KafkaSource


class FrameRange(NamedTuple):
    """What one source holds of one partition.

    blocks : state to begin with. cold : whether something before is neither there nor in `blocks`; None if only the
    first frame will tell. read : from an offset on (None: from the beginning), telling bytes as it goes.
    """

    source: str
    partition: int
    blocks: Sequence[bytes]
    cold: bool | None
    read: Callable[[int | None, Callable[[int], None]], Iterator[FrameBatch]]

    @property
    def name(self) -> str:
        return f"{self.source}#{self.partition}"


def stretches(source: Source, selection: Selection, config: Config) -> list[FrameRange] | None:
    """By partition; None for a source that cannot be read so. Raises SourceError."""
    if isinstance(source, ArchiveFolder):
        archive = source.archive
        tail_ms = 1_000 * (config.drift.window_s + config.drift.lateness_s)
        return [_archived(source.name, archive, partition, selection, tail_ms) for partition in archive.partitions]
    if getattr(source, "holds_frames", False):
        from streams.history.kafka_source import KafkaSource  # only this kind needs a client library

        assert isinstance(source, KafkaSource)
        return [_of_topic(source, partition, selection) for partition in source.partitions()]
    return None


def _archived(name: str, archive: Archive, partition: int, selection: Selection, tail_ms: int) -> FrameRange:
    """From the newest snapshot that lies before what is told, else from the beginning of what is there.

    Until behind the last row that is told of, and long enough for windows of drift to close. Behind that only clients
    matter about whom there are orders: whether their last time lies in the range shows in their rows.
    """
    snapshot, stop = None, None
    try:
        if selection.until_ms is not None:
            found = archive.offset_behind(partition, selection.until_ms + tail_ms)
            stop = -1 if found is None else found
        if selection.since_ms is not None or selection.first is not None:
            snapshot = archive.snapshot(partition, selection.first, selection.since_ms)
    except ArchiveError as error:
        raise SourceError(str(error)) from error
    begin = None if snapshot is None else snapshot.begin
    last = None if selection.end is None else selection.end - 1

    def slices(first: int | None) -> Iterator[Slice]:
        if stop is None or (last is not None and last <= stop):
            yield Slice(first, last, clients=selection.clients)
            return
        yield Slice(first, stop, clients=selection.clients)
        behind = max(stop + 1, first or 0)
        clients = archive.ordered(partition, behind, last)
        if clients := clients & selection.clients if selection.clients else clients:
            yield Slice(behind, last, clients=clients)

    def read(first: int | None, advance: Callable[[int], None]) -> Iterator[FrameBatch]:
        try:
            for wanted in slices(begin if first is None else first):
                for found in archive.batches(partition, wanted):
                    yield FrameBatch(found.frames, found.rejects)
                    advance(found.size)
        except ArchiveError as error:
            raise SourceError(str(error)) from error

    cold = snapshot is None and not archive.is_whole(partition, 0)
    return FrameRange(name, partition, () if snapshot is None else snapshot.blocks, cold, read)


def _of_topic(source: "KafkaSource", partition: int, selection: Selection) -> FrameRange:
    """From where the topic, or the range of it that was asked for, begins: the topic of state keeps no snapshots."""
    end = min((end for end in (source.end, selection.end) if end is not None), default=None)

    def read(first: int | None, advance: Callable[[int], None]) -> Iterator[FrameBatch]:
        for batch in source.part(partition, source.first if first is None else first, end).batches(advance):
            assert isinstance(batch, FrameBatch)
            yield batch

    return FrameRange(source.name, partition, (), None, read)


def first_offset(batch: FrameBatch) -> int | None:
    return min([*(frame.offset for frame in batch.frames), *(reject.offset for reject in batch.rejects)], default=None)


def next_offset(batch: FrameBatch) -> int | None:
    offsets = [*(frame.offset for frame in batch.frames), *(reject.offset for reject in batch.rejects)]
    return max(offsets) + 1 if offsets else None
