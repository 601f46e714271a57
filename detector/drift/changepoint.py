"""Change-point detection on a series of figures: river's ADWIN and Page-Hinkley, replayable.

Detectors of river cannot be written down, so their history is: a monitor is its baseline and the figures since the last
change, at most HISTORY of them, and the detectors are what these figures, fed again, make of them.
"""

from typing import Any, NamedTuple

import msgspec
import numpy as np

ADWIN_DELTA = 1e-4
"""Bifet, Gavalda (2007): bound on a false cut at one look, for figures between 0 and 1; ours have a deviation of 1."""

HINKLEY_DELTA = 0.5
HINKLEY_THRESHOLD = 20.0
"""Page (1954), in standard deviations of ordinary windows: half of one is no drift; their excess must sum to twenty."""

FIGURES_MIN = 10
Z_MAX = 8.0
"""Limit of one figure, in deviations: an outage of an hour is no drift."""

CHANGE_MIN = 1.0
HISTORY = 1_024
KEPT = 512
BINS = 8
BIN_MS = 3 * 3_600_000
SHRINK = 4
"""A part of the day leans on the whole day with the weight of four figures."""

SPREAD_FLOOR = 0.05
"""Ordinary windows never count as steadier than this share of a single row's deviation: what moves a mean by less than
a fortieth of that is not worth a word, however many rows show it."""


class WindowFigure(msgspec.Struct, array_like=True):
    """Of the windows from since_ms to until_ms. z : distance from the baseline in its deviations, thousandths."""

    since_ms: int
    until_ms: int
    value: float
    z: int
    rows: int


class Change(NamedTuple):
    """before, after : levels, in the statistic's unit. deviation : their distance in ordinary windows' deviations.

    test : "adwin" | "page_hinkley". threshold : of that test. rows : in the figures since the change.
    """

    test: str
    threshold: float
    since_ms: int
    until_ms: int
    before: float
    after: float
    deviation: float
    rows: int


class Baseline(msgspec.Struct, array_like=True):
    """level : (BINS,) by part of the day, UTC. deviation : of ordinary windows."""

    level: list[float]
    deviation: float


class Monitor(msgspec.Struct):
    """One statistic of one space. learning : (since_ms, until_ms, value, spread) until there is a baseline."""

    baseline: Baseline | None = None
    learning: list[tuple[int, int, float, float]] = msgspec.field(default_factory=list)
    history: list[WindowFigure] = msgspec.field(default_factory=list)


class ChangeWatch:
    """A monitor at work. learn : figures that make its baseline. floor : least deviation, in the statistic's unit."""

    def __init__(self, monitor: Monitor, learn: int, floor: float) -> None:
        self.monitor = monitor
        self._learn = learn
        self._floor = floor
        self._tests: dict[str, Any] | None = None
        self._refeed()

    def add(self, since_ms: int, until_ms: int, value: float, spread: float, rows: int) -> Change | None:
        """Take a window's figure. spread : of single rows, 0 if that has no meaning."""
        monitor = self.monitor
        if monitor.baseline is None:
            monitor.learning.append((since_ms, until_ms, value, spread))
            if len(monitor.learning) >= self._learn:
                monitor.baseline = _baseline(monitor.learning, self._floor)
                monitor.learning = []
            return None
        level = monitor.baseline.level[_bin(since_ms, until_ms)]
        z = min(max((value - level) / monitor.baseline.deviation, -Z_MAX), Z_MAX)
        figure = WindowFigure(since_ms, until_ms, value, round(1_000 * z), rows)
        monitor.history.append(figure)
        test = self._feed(figure)
        if test is None:
            if len(monitor.history) >= HISTORY:
                monitor.history = monitor.history[-KEPT:]
                self._refeed()
            return None
        return self._cut(test)

    def rebase(self, step: float) -> None:
        """The baseline itself has moved by `step` deviations: figures since the change are ordinary now."""
        for figure in self.monitor.history:
            figure.z -= round(1_000 * step)
        self._refeed()

    def _cut(self, test: str) -> Change | None:
        """Restart where the level changed: at the largest cumulative deviation (Page 1954; Bai 1994)."""
        monitor = self.monitor
        assert monitor.baseline is not None
        z = np.array([figure.z for figure in monitor.history], np.float64) / 1_000.0
        walk = np.abs(np.cumsum(z - z.mean())[:-1])
        cut = int(np.argmax(walk)) + 1
        former, latter = monitor.history[:cut], monitor.history[cut:]
        step = float(z[cut:].mean() - z[:cut].mean())
        monitor.history = latter
        self._refeed()
        if abs(step) < CHANGE_MIN:
            return None
        before = sum(figure.value for figure in former) / len(former)
        after = before + step * monitor.baseline.deviation
        threshold = ADWIN_DELTA if test == "adwin" else HINKLEY_THRESHOLD
        rows = sum(figure.rows for figure in latter)
        return Change(test, threshold, latter[0].since_ms, latter[-1].until_ms, before, after, step, rows)

    def _feed(self, figure: WindowFigure) -> str | None:
        z = figure.z / 1_000.0
        if self._tests is None:
            self._tests = _tests()
        for test in self._tests.values():
            test.update(z)
        return next((name for name, test in self._tests.items() if test.drift_detected), None)

    def _refeed(self) -> None:
        self._tests = None
        for figure in self.monitor.history:
            self._feed(figure)


def _tests() -> dict[str, Any]:
    """By name, the surer one first. river brings pandas, SciPy and scikit-learn with it, which takes seconds: a short
    replay never has a baseline to compare with, and goes without."""
    from river.drift import ADWIN, PageHinkley

    return {
        "page_hinkley": PageHinkley(
            min_instances=FIGURES_MIN, delta=HINKLEY_DELTA, threshold=HINKLEY_THRESHOLD, alpha=1.0
        ),
        "adwin": ADWIN(delta=ADWIN_DELTA, clock=1, grace_period=FIGURES_MIN),  # type: ignore[no-untyped-call]
    }


def _bin(since_ms: int, until_ms: int) -> int:
    return (since_ms + until_ms) // 2 // BIN_MS % BINS


def _baseline(learned: list[tuple[int, int, float, float]], floor: float) -> Baseline:
    place = np.array([_bin(since, until) for since, until, _, _ in learned])
    value, spread = np.array([[figure[2], figure[3]] for figure in learned]).T
    counts, sums = np.bincount(place, minlength=BINS), np.bincount(place, value, BINS)
    level = (sums + SHRINK * value.mean()) / (counts + SHRINK)
    rest = value - level[place]
    freedom = max(1, len(learned) - np.count_nonzero(counts))
    deviation = float(np.sqrt((rest * rest).sum() / freedom))
    return Baseline(level.tolist(), max(deviation, SPREAD_FLOOR * float(np.median(spread)), floor))
