"""The folds of `link` over one log of `requests`: state of all partitions, stored as one record.

    step(frames)   every fold gets the frames that are new
    due(behind)    CloseFrames to write into every partition
    close()        closes what every partition has a CloseFrame for: events, and frames to write

The live stage and every replay call these three, so adding a fold changes neither.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import zstandard

from detector.drift.fold import DriftFold
from detector.frame import CloseFrame, Frame, ResultFrame, RowFrame, ShiftFrame
from detector.link_fold import Closed, DamagedStateError, LinkFold, StateError
from detector.schema_drift.fold import SchemaDriftFold
from detector.settings import DetectionSettings
from detector.state.packing import BODY_BYTES_MIN, pack, unpack
from models.artefacts.store import Artefacts

REGISTRY: tuple[Callable[[DetectionSettings, Artefacts], LinkFold], ...] = (DriftFold.of, SchemaDriftFold.of)
"""Every fold of `link`. An added fold begins at the offsets of `link`; the state of a removed one is dropped."""

STATE_MAGIC = b"PWL"
STATE_LAYOUT = 1
"""One digit behind the magic. Raise it when the envelope of the folds' states changes."""

Cuts = Mapping[str, Mapping[int, int]]
"""Fold -> partition -> event time, ms, of the furthest CloseFrame."""


class _StoredFold(msgspec.Struct):
    name: str
    layout: int
    body: bytes


class _Stored(msgspec.Struct):
    next: list[tuple[int, int]]
    folds: list[_StoredFold]


class LinkState:
    """Folds, and how far they have read. next : partition -> offset of the next frame."""

    def __init__(self, folds: Sequence[LinkFold], partitions: int) -> None:
        self.folds = folds
        self.next: dict[int, int] = {}
        self._partitions = partitions
        self._asked: dict[str, int] = {}

    @classmethod
    def of(cls, config: DetectionSettings, artefacts: Artefacts) -> "LinkState":
        """The empty state of every fold in the registry."""
        return cls([make(config, artefacts) for make in REGISTRY], config.request_partitions)

    @property
    def late(self) -> int:
        return sum(fold.late for fold in self.folds)

    @property
    def cuts(self) -> Cuts:
        return {fold.name: fold.cuts for fold in self.folds}

    def step(self, frames: Sequence[Frame]) -> int:
        """Fold frames, in the order of each partition; frames below `next` change nothing. How many rows were new."""
        new = []
        for frame in frames:
            if frame.offset >= self.next.get(frame.partition, 0):
                self.next[frame.partition] = frame.offset + 1
                new.append(frame)
        for fold in self.folds:
            fold.step([frame for frame in new if not isinstance(frame, CloseFrame) or frame.fold == fold.name])
        return sum(frame.rows.count for frame in new if isinstance(frame, RowFrame))

    def due(self, behind: Collection[int] = ()) -> list[CloseFrame]:
        """CloseFrames to write into every partition, each once. behind : partitions with records not read yet."""
        frames = []
        for fold in self.folds:
            until_ms = fold.due(behind)
            if until_ms is not None and until_ms > self._asked.get(fold.name, until_ms - 1):
                self._asked[fold.name] = until_ms
                frames.append(CloseFrame(-1, -1, until_ms, fold.name))
        return frames

    def close(self, cuts: Cuts | None = None) -> Closed:
        """Close the windows for which every partition has a CloseFrame.

        cuts : those that count; by default all that `step` has met.
        Of frames with the same `about` only the newest is returned.
        """
        return self._close(self.cuts if cuts is None else cuts, at_horizon=False)

    def close_due(self) -> Closed:
        """The same; a fold of which the log holds no CloseFrame closes what event time has passed."""
        return self._close(self.cuts, at_horizon=True)

    def _close(self, cuts: Cuts, *, at_horizon: bool) -> Closed:
        closed = Closed([], [], 0)
        newest: dict[tuple[str, str], ShiftFrame | ResultFrame] = {}
        for fold in self.folds:
            until_ms = self._closed_everywhere(cuts.get(fold.name, {}))
            if until_ms is None and at_horizon and not fold.cuts:
                until_ms = fold.due(())
            if until_ms is not None:
                events, frames, windows = fold.close(until_ms)
                closed = closed._replace(events=closed.events + events, windows=closed.windows + windows)
                newest |= {(fold.name, frame.about): frame for frame in frames}
        return closed._replace(frames=list(newest.values()))

    def _closed_everywhere(self, cuts: Mapping[int, int]) -> int | None:
        if not all(partition in cuts for partition in range(self._partitions)):
            return None
        return min(cuts[partition] for partition in range(self._partitions))

    def dump(self) -> bytes:
        """All of it; `load` continues with the same bytes of events."""
        stored = _Stored(
            sorted(self.next.items()), [_StoredFold(fold.name, fold.layout, fold.dump()) for fold in self.folds]
        )
        return STATE_MAGIC + b"%d" % STATE_LAYOUT + pack(msgspec.msgpack.encode(stored), level=3, checksum=True)

    def load(self, value: bytes) -> None:
        """Continue a dumped state; only while nothing has been stepped. Folds without a state in it stay empty.

        Raises DamagedStateError, or StateError if this version cannot read it.
        """
        stored = _stored(value)
        states = {state.name: state for state in stored.folds}
        for fold in self.folds:
            state = states.get(fold.name)
            if state is None:
                continue
            if state.layout != fold.layout:
                raise StateError(_unreadable(f"the stored state of fold {fold.name}", state.layout, fold.layout))
            fold.load(state.body)
        self.next = dict(stored.next)


def reached(value: bytes) -> dict[int, int]:
    """The offsets that a dumped state has reached, by partition. Raises StateError."""
    return dict(_stored(value).next)


def _stored(value: bytes) -> _Stored:
    magic, digit, packed = value[:3], value[3:4], value[4:]
    if magic != STATE_MAGIC or not digit.isdigit():
        raise DamagedStateError("not a state of link")
    if int(digit) != STATE_LAYOUT:
        raise StateError(_unreadable("the stored state", int(digit), STATE_LAYOUT))
    try:
        return msgspec.msgpack.decode(unpack(packed, BODY_BYTES_MIN), type=_Stored)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise DamagedStateError(f"damaged state: {type(error).__name__}") from error


def _unreadable(what: str, layout: int, readable: int) -> str:
    return (
        f"{what} has layout {layout}, this version reads layout {readable}: use the version that wrote it, or name a"
        " new topics.link_state"
    )
