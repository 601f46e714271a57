"""The contract of a fold of `link`: over all partitions of `requests`, with results when windows of event time close.

`judge` folds each client separately. A computation over the rows of many clients, such as the drift of a model, is a
LinkFold: one package with a class, and one line in `detector.link.REGISTRY`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from detector.events.finding import Event
from detector.frame import Frame, ResultFrame, ShiftFrame


class StateError(Exception):
    """A stored state that this version cannot read. The text says what to do."""


class DamagedStateError(StateError):
    """Bytes that are not a state, or not the bytes that were written. An older record may be whole."""


class Closed(NamedTuple):
    """What closing windows gave.

    events : for their topics, in order of event time.
    frames : for every partition of `requests`, newest last; partition and offset are -1 until they are written.
    windows : how many windows were closed.
    """

    events: list[Event]
    frames: list[ShiftFrame | ResultFrame]
    windows: int


class LinkFold(Protocol):
    """A fold over all partitions of `requests`, run by `link` live and by every replay.

    The same frames must give the same bytes, whatever the order of partitions, and however often they are delivered:
    no clock, no randomness, no iteration over sets. `detector.event_time.EventTime` does the hard parts: rows that were
    seen before, clocks of partitions, and which rows are too late.

    The host calls, in this order and on one thread:

        step(frames) … -> due(behind) -> step(frames, the CloseFrame among them) … -> close(until_ms)

    and `dump` between any two calls. Events and frames that `close` returned are acknowledged by the broker before the
    dumped state is written, and that before offsets are committed. After a crash some of them are therefore written
    again, with the same ids and bytes; readers of the frames must accept them twice.

    name : ASCII word, unique in the registry; names the fold's state and its CloseFrames. Fixed for life.
    layout : number of the format that `dump` writes. Raise it when that changes; the host refuses other numbers.
    window_ms : length of a window, ms, at most `drift.window_s`: a replay of a range reads that far beyond its end.
    cuts : partition -> event time, ms, of the furthest CloseFrame of this fold that `step` has met there.
    late : rows not counted since the start, because they came too late or lie too far in the future.

    Example, which counts the rows of each minute (`tests/link_folds/minutes.py` is the same with events)::

        class Minutes:
            name, layout, window_ms = "minutes", 1, 60_000

            def step(self, frames):
                for frame in frames:
                    if isinstance(frame, CloseFrame):
                        self._time.cut(frame)
                    elif isinstance(frame, RowFrame) and (new := self._time.admit(frame)) is not None:
                        self._add(new)

            def due(self, behind):
                passed = self._time.horizon(behind)
                return None if passed is None else self._open_before(passed // self.window_ms)

            def close(self, until_ms):
                ...
    """

    name: str
    layout: int
    window_ms: int

    @property
    def cuts(self) -> Mapping[int, int]: ...

    @property
    def late(self) -> int: ...

    def step(self, frames: Sequence[Frame]) -> None:
        """Fold frames, in the order of each partition.

        frames : each offset once, ascending in each partition, partitions mixed in any order. They hold frames of every
        kind, but of CloseFrames only this fold's.

        Never raises: rows of unknown spaces or of another width are passed over, as are unknown control frames.
        """

    def due(self, behind: Collection[int]) -> int | None:
        """Up to which event time windows can be closed now.

        behind : partitions with records that are known and not read yet; their windows must stay open.
        Returns the `until_ms` of the CloseFrame to write into every partition, or None if there is nothing to close.
        """

    def close(self, until_ms: int) -> Closed:
        """Close every window that ends by `until_ms`.

        until_ms : event time up to which all partitions have a CloseFrame.
        Called after every batch: a second call with the same `until_ms` returns nothing.
        """

    def dump(self) -> bytes:
        """The whole state. The host adds name, layout, compression and a checksum, and counts the offsets itself.

        `load` of these bytes and `dump` again give the same bytes, and every later event is the same.
        """

    def load(self, value: bytes) -> None:
        """Take over what `dump` of the same layout wrote. Called at most once, before the first `step`.

        value : the bytes, already checked for damage. They may come from other artefacts or another configuration:
        what does not fit is dropped.
        Raises DamagedStateError if they are no state of this fold.
        """
