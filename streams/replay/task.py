"""One fold on its way through history: it can be looked at, stopped, and gone on with."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streams.history.base import FrameBatch, RawBatch, Source, SourceError
from streams.replay.checkpoint import Keeper, Kept
from streams.replay.fold import Fold, PartitionFold
from streams.replay.inputs import FrameRange, first_offset, next_offset
from streams.replay.records import Records


class StoppedError(Exception):
    """Somebody asked to stop; `--resume` goes on."""


class Pulse(NamedTuple):
    """How far a work has come. read : bytes since the last pulse; the others in all."""

    read: int
    rows: int
    alerts: int
    clock_ms: int | None


class Outside(NamedTuple):
    """Who watches. tell : called after each batch. stops : asked after each."""

    tell: Callable[[Pulse], None] = lambda _: None
    stops: Callable[[], bool] = lambda: False


class Work:
    """A fold, how far it has read, and its checkpoints.

    records : for raw history. one_of_many : it is kept when it is done as well, so that a run that is stopped need not
    do it again.
    """

    def __init__(
        self,
        fold: Fold,
        outside: Outside,
        keeper: Keeper | None,
        records: Records | None = None,
        *,
        one_of_many: bool = False,
    ) -> None:
        self._fold = fold
        self._outside = outside
        self._keeper = keeper
        self._records = records
        self._one_of_many = one_of_many
        self._reached: Counter[str] = Counter()
        self._read = 0
        self._done = False

    def resume(self) -> None:
        """Go on where the last checkpoint stands, if there is one. Raises CheckpointError."""
        kept = self._keeper.load() if self._keeper is not None else None
        if kept is None or self._keeper is None:
            return
        self._fold.load(kept.fold, self._keeper)
        self._reached = Counter(kept.reached)
        self._done = kept.done
        if self._records is not None:
            self._records.written = Counter(kept.written)

    def over_frames(self, stretches: Sequence[FrameRange]) -> PartitionFold:
        """Raises SourceError, StoppedError."""
        for stretch in [] if self._done else stretches:
            begun = stretch.name in self._reached
            if not begun:
                self._fold.open(stretch.partition, stretch.blocks, cold=bool(stretch.cold))
            for batch in stretch.read(self._reached[stretch.name] if begun else None, self._advance):
                if not begun and stretch.cold is None and (first_offset(batch) or 0) > 0:
                    self._fold.open(stretch.partition, (), cold=True)
                begun = True
                self._fold.add(batch)
                after = next_offset(batch)
                if after is not None:
                    self._reached[stretch.name] = after
                    self._after_batch()
        return self._finished()

    def over_sources(self, sources: Sequence[Source], plain_clients: bool) -> PartitionFold:
        """Sources one after the other, of raw records or of frames. Raises SourceError, StoppedError."""
        assert self._records is not None
        kinds: set[type] = set()
        for source in [] if self._done else sources:
            passed: Counter[str] = Counter()
            for batch in source.batches(self._advance):
                kinds.add(type(batch))
                if len(kinds) > 1:
                    raise SourceError(
                        f"{source.name}: records and frames cannot be replayed together; their positions differ"
                    )
                if isinstance(batch, FrameBatch):
                    if plain_clients:
                        raise SourceError(
                            f"{source.name}: frames hold no client ids; --plain-clients needs the raw records"
                        )
                    self._fold.add(batch)
                # One file in order of time is followed as `link` would.
                elif self._add(source, batch, passed, len(sources) == 1 and batch.topic == source.name):
                    self._after_batch()
        if RawBatch in kinds and not self._done:
            self._records.close_windows()
        return self._finished()

    def _add(self, source: Source, batch: RawBatch, passed: Counter[str], follow: bool) -> bool:
        """What a checkpoint has behind it is passed over; whether there was more."""
        assert self._records is not None
        name = f"{source.name}#{batch.topic}[{batch.partition}]"
        behind = min(max(0, self._reached[name] - passed[name]), len(batch.records))
        passed[name] += len(batch.records)
        if behind == len(batch.records):
            return False
        self._records.add(batch._replace(records=batch.records[behind:]))
        self._reached[name] = passed[name]
        if follow:
            self._records.close_windows()
        return True

    def _advance(self, units: int) -> None:
        self._read += units

    def _after_batch(self) -> None:
        part = self._fold.part
        self._outside.tell(Pulse(self._read, part.rows, part.alerts, part.clock_ms))
        self._read = 0
        stops = self._outside.stops()
        if self._keeper is not None and (stops or self._keeper.due):
            self._keep(self._keeper)
        if stops:
            raise StoppedError

    def _finished(self) -> PartitionFold:
        part = self._fold.part
        if not self._done:
            self._done = True
            self._fold.close_windows()
            if self._keeper is not None and self._one_of_many:
                self._keep(self._keeper)
        self._outside.tell(Pulse(self._read, part.rows, part.alerts, part.clock_ms))
        return self._fold.finish()

    def _keep(self, keeper: Keeper) -> None:
        written = dict(self._records.written) if self._records is not None else {}
        held = self._fold.dump(states=not self._done)
        keeper.keep(Kept(keeper.run, dict(self._reached), written, self._done, held))
