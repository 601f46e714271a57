"""What is replayed, and for frames: from where each partition is read, and with which state it begins."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from detector.engine import EngineSettings
from models.artefacts.store import Artefacts
from streams.config.config import Config
from streams.history.archive import Archive, ArchiveError
from streams.history.archive.reader import Slice
from streams.history.base import FrameBatch, Source, SourceError
from streams.history.sources import ArchiveFolder
from streams.progress import Advance, Reporter, Silent
from streams.replay.selection import EVERYTHING, Selection
from streams.replay.settings_changes import SettingsHistory
from streams.secrets.load import Secrets

if TYPE_CHECKING:
    from streams.history.kafka_source import KafkaSource


class Plan(NamedTuple):
    """A replay: what to read, and what to judge it with. No option changes an event's bytes.

    selection : which events are reported. plain_clients : client ids of the log instead of pseudonyms. changes :
    settings over time if they changed, the newest those of `config` and `artefacts`. stops : asked after each batch.
    """

    sources: Sequence[Source]
    config: Config
    artefacts: Artefacts
    secrets: Secrets
    selection: Selection = EVERYTHING
    plain_clients: bool = False
    changes: SettingsHistory | None = None
    reporter: Reporter = Silent()
    stops: Callable[[], bool] = lambda: False

    @property
    def settings(self) -> SettingsHistory:
        return self.changes or SettingsHistory([EngineSettings(self.config, self.artefacts)])


class FrameRange(NamedTuple):
    """What one source holds of one partition.

    blocks : state to begin with. cold : whether frames from before are neither in the source nor in `blocks`; None if
    only the first frame will tell. read : from the beginning of the range, reporting bytes as it goes.
    """

    partition: int
    blocks: Sequence[bytes]
    cold: bool | None
    read: Callable[[Advance], Iterator[FrameBatch]]


def frame_ranges(plan: Plan) -> list[FrameRange] | None:
    """By partition, then in the order of the sources; None if the sources hold raw records. Raises SourceError."""
    by_source = [(source.name, _ranges(source, plan.selection, plan.config)) for source in plan.sources]
    kinds = [ranges is None for _, ranges in by_source]
    for name, ranges in by_source:
        if (ranges is None) != kinds[0]:
            raise SourceError(f"{name}: records and frames cannot be replayed together; their positions differ")
        if ranges is None and (plan.selection.first is not None or plan.selection.end is not None):
            raise SourceError(
                f"{name}: --from and --to are offsets in `requests`, and these are raw records; give --since"
                " and --until, or ?from=OFFSET&to=OFFSET in the address of a topic"
            )
        if ranges is not None and plan.plain_clients:
            raise SourceError(f"{name}: frames hold no client ids; --plain-clients needs the raw records")
    if all(kinds):
        return None
    return sorted((part for _, ranges in by_source for part in ranges or ()), key=lambda part: part.partition)


def _ranges(source: Source, selection: Selection, config: Config) -> list[FrameRange] | None:
    if isinstance(source, ArchiveFolder):
        archive = source.archive
        tail_ms = 1_000 * (config.drift.window_s + config.drift.lateness_s)
        return [_archived(archive, partition, selection, tail_ms) for partition in archive.partitions]
    if getattr(source, "holds_frames", False):
        from streams.history.kafka_source import KafkaSource  # only this kind needs a client library

        assert isinstance(source, KafkaSource)
        return [_of_topic(source, partition, selection) for partition in source.partitions()]
    return None


def _archived(archive: Archive, partition: int, selection: Selection, tail_ms: int) -> FrameRange:
    """From the newest snapshot before the selection, else from the beginning of the archive.

    To the end of the selection, and far enough beyond for windows of drift to close. Beyond that, only clients matter
    about whom there are orders: their rows tell whether the order's event time lies in the selection.
    """
    snapshot, stop = None, None
    try:
        if selection.until_ms is not None:
            offset = archive.offset_behind(partition, selection.until_ms + tail_ms)
            stop = -1 if offset is None else offset
        if selection.since_ms is not None or selection.first is not None:
            snapshot = archive.snapshot(partition, selection.first, selection.since_ms)
    except ArchiveError as error:
        raise SourceError(str(error)) from error
    begin = None if snapshot is None else snapshot.begin
    last = None if selection.end is None else selection.end - 1

    def slices() -> Iterator[Slice]:
        if stop is None or (last is not None and last <= stop):
            yield Slice(begin, last, clients=selection.clients)
            return
        yield Slice(begin, stop, clients=selection.clients)
        beyond = max(stop + 1, begin or 0)
        clients = archive.ordered(partition, beyond, last)
        if clients := clients & selection.clients if selection.clients else clients:
            yield Slice(beyond, last, clients=clients)

    def read(advance: Advance) -> Iterator[FrameBatch]:
        try:
            for wanted in slices():
                for batch in archive.batches(partition, wanted):
                    yield FrameBatch(batch.frames, batch.rejects)
                    advance(batch.size)
        except ArchiveError as error:
            raise SourceError(str(error)) from error

    cold = snapshot is None and not archive.is_whole(partition, 0)
    return FrameRange(partition, () if snapshot is None else snapshot.blocks, cold, read)


def _of_topic(source: "KafkaSource", partition: int, selection: Selection) -> FrameRange:
    """From the beginning of the topic, or of the given range of it: the state topic keeps no snapshots."""
    end = min((end for end in (source.end, selection.end) if end is not None), default=None)

    def read(advance: Advance) -> Iterator[FrameBatch]:
        for batch in source.part(partition, source.first, end).batches(advance):
            assert isinstance(batch, FrameBatch)
            yield batch

    return FrameRange(partition, (), None, read)
