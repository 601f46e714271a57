"""Raw records on their way into the fold: sketched, with the offsets that they would have in `requests`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace as with_fields

import numpy as np

from detector.breaker.held import acts
from detector.frame import BreakerFrame, JudgeFrame, LinkFrame, RowFrame
from models.reorder import take
from models.rows import I64, U8, U64, Rows
from streams.history.base import RawBatch
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import Plan
from streams.replay.link import ReplayedLink
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, former_of
from streams.sketch.sketcher import Sketcher, raw_range

PIECE_ROWS = 64
"""Fewer rows at a time would cost more than they are worth: a frame costs the fold as much as eighty rows."""
MINUTE_MS = 60_000


class _NamingIdentity(Identity):
    """Keeps the client id of each key, for `--plain-clients`."""

    def __init__(self, secrets: Secrets, registry: Iterable[str]) -> None:
        former = former_of(secrets, registry)
        super().__init__(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed, former=former)
        self.names: dict[int, str] = {}

    def clients_of_utf8(self, client_ids: Sequence[bytes]) -> tuple[U64, U8]:
        keys, tails = super().clients_of_utf8(client_ids)
        self.names.update(zip(keys.tolist(), map(bytes.decode, client_ids), strict=True))
        return keys, tails


_PLACE = ("source", "offset", "index", "time_ms")


class Records:
    """Sketches raw batches in order, as `sketch` does, and feeds the frames to both folds.

    What `judge` writes into `requests` stands behind the rows of the same minute of the log: where that is depends on
    the records alone, not on their batches.
    """

    def __init__(self, plan: Plan, findings: Findings, fold: Fold, link: ReplayedLink) -> None:
        config = plan.config
        self._findings = findings
        self._fold = fold
        self._link = link
        self._incarnation = config.input.incarnation
        self._partitions = config.topics.partitions
        identity = _NamingIdentity(plan.secrets, config.input.registry)
        self._sketcher = Sketcher(plan.artefacts, identity, config)
        self._names = identity.names if plan.plain_clients else {}
        self._written: Counter[int] = Counter()
        self._by_minute = acts(config.policy)
        self._minute: int | None = None

    def add(self, batches: Sequence[RawBatch], *, in_order: bool = False) -> None:
        """Batches of the same time, of different raw partitions. in_order : later ones are of later times, so that
        windows can be closed as time passes."""
        stretches = [raw_range(b.topic, b.partition, self._incarnation, b.records) for b in batches]
        result = self._sketcher.frames_of(stretches, self._partitions)
        self._findings.summary.records += sum(len(batch.records) for batch in batches)
        self._findings.rejects += result.rejects
        self._findings.summary.unjudged.update(result.unjudged)
        frames = [with_fields(frame, names=self._names) for frame in result.frames]
        if self._by_minute:
            self._step_by_clock(frames, in_order)
            return
        if not in_order:
            self._step(frames)
            return
        for piece in by_minutes(frames):
            self._step(piece)
            self.close_windows()

    def _step_by_clock(self, frames: list[RowFrame], in_order: bool) -> None:
        """Minute by minute, and between two of them what `judge` has written about the minutes before."""
        held = 0
        for minute, part in _by_clock(frames, self._minute):
            if minute != self._minute:
                self._feed_back()
                self._minute = minute
                if in_order and held >= PIECE_ROWS:
                    self.close_windows()
                    held = 0
            self._step(part)
            held += sum(frame.rows.count for frame in part)
        if in_order:
            self.close_windows()

    def finish(self) -> None:
        """Behind the last record."""
        self._feed_back()
        self.close_windows()

    def _feed_back(self) -> None:
        """What `judge` has written, and what follows from that, until nothing does."""
        while told := self._fold.take():
            for frame in told:
                if isinstance(frame, BreakerFrame):
                    self._broadcast(frame)
                else:
                    self._step([with_fields(frame, partition=0)])

    def close_windows(self) -> None:
        """As `link` does: close frames, then the results of closed windows, into every partition."""
        for frame in self._link.due():
            self._broadcast(frame)
        for result in self._link.close_windows():
            self._broadcast(result)

    def _broadcast(self, frame: LinkFrame | BreakerFrame) -> None:
        for partition in range(self._partitions):
            self._step([with_fields(frame, partition=partition)])

    def _step(self, frames: Sequence[RowFrame | LinkFrame | JudgeFrame]) -> None:
        placed = []
        for frame in frames:
            placed.append(with_fields(frame, offset=self._written[frame.partition]))
            self._written[frame.partition] += 1
        self._link.step(placed)
        self._fold.step(placed)


def by_minutes(frames: Sequence[RowFrame]) -> Iterator[list[RowFrame]]:
    """Frames, cut where time passes a minute, into pieces of PIECE_ROWS rows at least.

    So that what `link` finds in a window is in force soon after, as it is live, however few rows a minute has.
    """
    clocks = [_minutes(frame.rows) for frame in frames]
    minutes, counts = np.unique(np.concatenate(clocks or [np.zeros(0, np.int64)]), return_counts=True)
    ends, held = [], 0
    for minute, count in zip(minutes.tolist(), counts.tolist(), strict=True):
        held += count
        if held >= PIECE_ROWS:
            ends.append(minute)
            held = 0
    places = [np.searchsorted(ends, clock) for clock in clocks]
    for piece in range(len(ends) + 1):
        chosen = [np.flatnonzero(place == piece) for place in places]
        cut = [
            frame if len(rows) == frame.rows.count else with_fields(frame, rows=take(frame.rows, rows))
            for frame, rows in zip(frames, chosen, strict=True)
            if len(rows)
        ]
        if cut:
            yield cut


def _minutes(rows: Rows) -> I64:
    """(n,) the latest minute that the raw partition of each row has reached."""
    minutes = rows.time_ms // MINUTE_MS
    for source in np.unique(rows.source).tolist():
        own = rows.source == source
        minutes[own] = np.maximum.accumulate(minutes[own])
    return minutes


def _by_clock(frames: Sequence[RowFrame], reached: int | None) -> Iterator[tuple[int, list[RowFrame]]]:
    """Frames of one time, cut where the latest time of their raw partition so far enters another minute.

    reached : the minute that was entered before.
    """
    if not frames:
        return
    rows = [frame.rows for frame in frames]
    source, offset, index, minute = (np.concatenate([getattr(part, name) for part in rows]) for name in _PLACE)
    order = np.lexsort((index, offset, source))
    _, group = np.unique(source[order], return_inverse=True)
    apart = group.astype(np.int64) << 40
    entered = np.empty(len(order), np.int64)
    entered[order] = np.maximum.accumulate(minute[order] // MINUTE_MS + apart) - apart
    entered = entered if reached is None else np.maximum(entered, reached)
    ends = np.cumsum([part.count for part in rows])
    for number in np.unique(entered).tolist():
        part = []
        for frame, of_frame in zip(frames, np.split(entered, ends[:-1]), strict=True):
            places = np.flatnonzero(of_frame == number)
            if len(places):
                part.append(
                    frame if len(places) == len(of_frame) else with_fields(frame, rows=take(frame.rows, places))
                )
        yield number, part
