"""The main loop: from sources through the folds to an outcome."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain

from detector.breaker.held import acts
from streams.history.base import FrameBatch, Source, together
from streams.history.sources import file_names
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import FrameRange, Plan, frame_ranges
from streams.replay.link import ReplayedLink
from streams.replay.outcome import Outcome, outcome
from streams.replay.records import Records


class StoppedError(Exception):
    """Stopped on request."""


def replay(plan: Plan) -> Outcome:
    """Read every source to its end and judge it.

    Example: replay(Plan(open_sources(["logs/june.jsonl.zst"], config), config, artefacts, secrets))

    Raises SourceError for a source that cannot be read; StoppedError if plan.stops() said so.
    """
    begun = time.perf_counter()
    findings, settings = Findings(), plan.settings
    ranges = frame_ranges(plan)
    link = ReplayedLink(settings, plan.selection, findings)
    fold = Fold(settings, plan.selection, findings, whole=ranges is None and acts(plan.config.policy))
    watch = Watch(findings, progress_line(plan), plan.stops)
    if ranges is None:
        read_records(plan.sources, Records(plan, findings, fold, link), watch)
    else:
        read_frames(ranges, (link, fold), watch)
    link.finish()
    fold.finish()
    return outcome(findings, settings, time.perf_counter() - begun)


def read_frames(ranges: Sequence[FrameRange], folds: Sequence[Fold | ReplayedLink], watch: "Watch") -> None:
    """Partition after partition. Raises SourceError, StoppedError."""
    for part in ranges:
        batches = part.read(watch.advance)
        first = next(batches, None)
        for fold in folds:
            fold.open(part.partition, part.blocks, cold=_begins_late(first) if part.cold is None else part.cold)
        for batch in chain([] if first is None else [first], batches):
            for fold in folds:
                fold.add(batch)
            watch.after_batch()
    watch.tell_progress()


def _begins_late(batch: FrameBatch | None) -> bool:
    offsets = [message.offset for message in (*batch.frames, *batch.rejects)] if batch is not None else []
    return min(offsets, default=0) > 0


def read_records(sources: Sequence[Source], records: Records, watch: "Watch") -> None:
    """Source after source. Windows of `link` close as soon as they are due if there are only files, in order of time;
    of other sources, which may cover the same time one after the other, at the end. Raises SourceError, StoppedError.
    """
    for source in sources:
        for batches in together(source.batches(watch.advance)):
            assert not isinstance(batches, FrameBatch)
            in_order = len(sources) == 1 and batches[0].topic in file_names(source)
            records.add(batches, in_order=in_order)
            watch.after_batch()
    records.finish()
    watch.tell_progress()


Tell = Callable[[int, int, int, int | None], None]
"""Takes the bytes read since the last call; then rows, alerts, and event time (ms) of the last row so far."""


class Watch:
    """Reports progress after each batch, and stops on request."""

    def __init__(self, findings: Findings, tell: Tell, stops: Callable[[], bool]) -> None:
        self._findings = findings
        self._tell = tell
        self._stops = stops
        self._read = 0

    def advance(self, units: int) -> None:
        self._read += units

    def after_batch(self) -> None:
        self.tell_progress()
        if self._stops():
            raise StoppedError

    def tell_progress(self) -> None:
        read, self._read = self._read, 0
        self._tell(read, self._findings.rows, self._findings.alerts, self._findings.clock_ms)


def progress_line(plan: Plan) -> Tell:
    """One line of progress: rows, rate, event time, alerts."""
    sizes = [source.size for source in plan.sources]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    name = plan.sources[0].name if len(plan.sources) == 1 else f"{len(plan.sources)} sources"
    advance = plan.reporter.task(name, total)
    begun = time.monotonic()

    def tell(read: int, rows: int, alerts: int, clock_ms: int | None) -> None:
        rate = rows / max(1e-3, time.monotonic() - begun)
        clock = "" if clock_ms is None else f" · {datetime.fromtimestamp(clock_ms / 1000, UTC):%F %H:%M}"
        plan.reporter.tell(f"{_short(rows)} rows · {_short(rate)}/s{clock} · {_short(alerts)} alerts")
        advance(read)

    return tell


def _short(number: float) -> str:
    """Three or four digits, so that the line has room for all of it."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"
