"""Drift of one space: figures of closed windows, compared with the level before."""

import math
from collections.abc import Mapping
from typing import Annotated, NamedTuple, Protocol

import msgspec
import numpy as np

from detector.drift import windows
from detector.drift.changepoint import Baseline, Change, ChangeWatch, Monitor
from detector.settings import DriftSettings
from models.kernels.drift.windows import MEASURED
from models.rows import F64, I16, I64

MEANS = (*MEASURED, "refusals")
FLOORS: Mapping[str, float] = {"refusals": 0.005}
FLOOR = 1e-4

JOINED_MAX = 24
"""Windows joined at most: a model with few clients has figures too, though groups are too few to compare its inputs."""

P_MAX = 0.01
MMD_MIN = 0.05
RUN = 3
"""Inputs have drifted when three figures in a row are both improbable and far: p alone shrinks with traffic."""

WEEK_MS = 7 * 86_400_000
VOLUME_DEVIATION = 0.25
VOLUME_DAMPING = 10.0
"""Volume is ln((rows + 10) / (rows a week before + 10)); ten rows a window are noise."""

FEATURES_KEPT = 3 / 4
SHIFT_KEPT = 7 / 8
USUAL_KEPT = 7 / 8
"""Share of the old in a smoothed figure."""


class PopulationStatistics(Protocol):
    """What drift needs of models.artefacts.population. centre : (d,) standard units   rff_mean : (D,)."""

    @property
    def centre(self) -> F64: ...

    @property
    def rff_mean(self) -> F64: ...

    def rff(self, values: I16) -> F64: ...


class Drifted(NamedTuple):
    """One statistic that left its level, or (lasting) is still away. p_or_threshold : of the test."""

    statistic: str
    test: str
    since_ms: int
    until_ms: int
    before: float
    after: float
    deviation: float | None
    p_or_threshold: float
    rows: int
    lasting: bool = False


class PopulationShift(NamedTuple):
    """vector : mean of the population's `values` less the reference's centre, value units, over the last figures."""

    since_ms: int
    until_ms: int
    rows: int
    vector: tuple[int, ...]


class Episode(msgspec.Struct, array_like=True):
    """A drift watched for whether it lasts: figures' mean must stay on `sign`'s side of `limit`."""

    begun: Drifted
    sign: int
    limit: float
    count: int = 0
    total: float = 0.0
    rows: int = 0


class Inputs(msgspec.Struct, array_like=True):
    """run : (since_ms, until_ms, mmd, rows) of figures in a row that are improbable and far. usual : mmd before them.

    calm : figures in a row that are near again. reported : this drift has been reported; reset once it is calm.
    """

    run: list[tuple[int, int, float, int]] = msgspec.field(default_factory=list)
    usual: float = 0.0
    calm: int = 0
    reported: bool = False


class SpaceMemory(msgspec.Struct):
    """State of a space. begun : number of its first window. counts : rows of the last week's windows, in order.

    pending : sums of closed windows short of rows, (GROUPS, width) int64 as bytes; of windows `pending_from` to _to.
    features : groups' mean features, smoothed, (GROUPS, D) float64 as bytes.
    """

    begun: int
    pending: bytes = b""
    pending_from: int = 0
    pending_to: int = 0
    monitors: dict[str, Monitor] = msgspec.field(default_factory=dict)
    episodes: dict[str, Episode] = msgspec.field(default_factory=dict)
    inputs: Inputs = msgspec.field(default_factory=Inputs)
    counts: list[Annotated[float, msgspec.Meta(ge=0)]] = msgspec.field(default_factory=list)
    features: bytes = b""
    shift: list[float] = msgspec.field(default_factory=list)


class SpaceDrift:
    """A space's state and the monitors that work on it."""

    def __init__(self, memory: SpaceMemory, config: DriftSettings, population: PopulationStatistics | None) -> None:
        self.memory = memory
        self._config = config
        self._population = population
        self._window_ms = 1_000 * config.window_s
        for name in (*MEANS, "volume"):
            memory.monitors.setdefault(name, Monitor())
        volume = memory.monitors["volume"]
        volume.baseline = volume.baseline or Baseline([0.0] * 8, VOLUME_DEVIATION)
        self._watches = {
            name: ChangeWatch(monitor, config.baseline_windows, FLOORS.get(name, FLOOR))
            for name, monitor in memory.monitors.items()
        }

    def forget_population(self) -> None:
        """The population has changed: sums of the old one's features mean nothing under the new one."""
        memory = self.memory
        memory.pending, memory.features, memory.inputs, memory.shift = b"", b"", Inputs(), []
        memory.episodes.pop("inputs", None)

    def forget_week(self) -> None:
        """Windows were skipped: the window of the week before is no longer at its index."""
        self.memory.counts = []

    def close(self, number: int, sums: I64 | None) -> tuple[list[Drifted], PopulationShift | None]:
        """Take the next window; None if it had no rows."""
        drifted = self._volume(number, 0 if sums is None else windows.row_count(sums))
        memory = self.memory
        if sums is not None:
            if memory.pending:
                sums = sums + np.frombuffer(memory.pending, np.int64).reshape(sums.shape)
            else:
                memory.pending_from = number
            memory.pending, memory.pending_to = sums.tobytes(), number + 1
            joined = memory.pending_to - memory.pending_from
            enough = windows.group_count(sums) >= windows.GROUPS_MIN or joined >= JOINED_MAX
            if enough and windows.row_count(sums) >= self._config.min_rows:
                memory.pending = b""
                span = memory.pending_from * self._window_ms, memory.pending_to * self._window_ms
                return drifted + self._figures(span, sums), self._moved(span, sums)
        return drifted, None

    def _figures(self, span: tuple[int, int], sums: I64) -> list[Drifted]:
        drifted: list[Drifted] = []
        rows = windows.row_count(sums)
        for name in MEANS:
            mean = windows.refusals(sums) if name == "refusals" else windows.measured(sums, name)
            if mean is not None:
                drifted += self._watch(name, span, mean, rows)
        if self._population is not None:
            drifted += self._compare(span, windows.compare(self._features(sums), self._population.rff_mean), rows)
        return drifted

    def _watch(self, name: str, span: tuple[int, int], mean: windows.Mean, rows: int) -> list[Drifted]:
        change = self._watches[name].add(*span, mean.value, mean.spread, rows)
        history = self.memory.monitors[name].history
        drifted = self._last(name, history[-1].z / 1_000 if history else 0.0, span[1], rows)
        return drifted + self._begin(name, change, 0.0)

    def _begin(self, name: str, change: Change | None, rebased: float) -> list[Drifted]:
        """rebased : what was taken off the figures since the change."""
        if change is None:
            return []
        history = self.memory.monitors[name].history
        level = sum(figure.z for figure in history) / len(history) / 1_000
        sign = 1 if change.deviation > 0 else -1
        begun = Drifted(
            name, change.test, change.since_ms, change.until_ms, change.before, change.after, change.deviation,
            change.threshold, change.rows,
        )  # fmt: skip
        running = self.memory.episodes.get(name)
        if running is not None and running.sign == sign:
            running.limit -= rebased
        else:
            self.memory.episodes[name] = Episode(begun, sign, level - change.deviation / 2, rows=change.rows)
        return [begun]

    def _last(self, name: str, figure: float, until_ms: int, rows: int) -> list[Drifted]:
        """Add a figure to a drift that has begun, and decide whether it lasts."""
        episode = self.memory.episodes.get(name)
        if episode is None:
            return []
        episode.count += 1
        episode.total += figure
        episode.rows += rows
        if episode.count < self._config.alert_windows:
            return []
        del self.memory.episodes[name]
        if episode.sign * (episode.total / episode.count - episode.limit) < 0:
            return []
        return [episode.begun._replace(until_ms=until_ms, rows=episode.rows, lasting=True)]

    def _features(self, sums: I64) -> F64:
        """Smoothed over windows, which removes the noise of single rows and keeps the differences of groups."""
        assert self._population is not None
        latest = windows.feature_means(sums, len(self._population.rff_mean))
        if self.memory.features:
            former = np.frombuffer(self.memory.features).reshape(latest.shape)
            both = FEATURES_KEPT * former + (1 - FEATURES_KEPT) * latest
            latest = np.where(np.isnan(former), latest, np.where(np.isnan(latest), former, both))
        self.memory.features = latest.tobytes()
        return latest

    def _compare(self, span: tuple[int, int], sample: windows.WindowSample, rows: int) -> list[Drifted]:
        memory, inputs = self.memory, self.memory.inputs
        drifted = self._last("inputs", sample.mmd, span[1], rows)
        far = sample.p is not None and sample.p <= P_MAX and sample.mmd >= MMD_MIN
        if inputs.reported:
            inputs.calm = inputs.calm + 1 if sample.mmd < MMD_MIN / 2 else 0
            if inputs.calm >= 2 * RUN:
                memory.inputs = Inputs(usual=sample.mmd)
            return drifted
        if not far:
            inputs.run = []
            inputs.usual += (1 - USUAL_KEPT) * (sample.mmd - inputs.usual)
            return drifted
        inputs.run.append((*span, sample.mmd, rows))
        if len(inputs.run) < RUN:
            return drifted
        inputs.reported = True
        after, total = sum(figure[2] for figure in inputs.run) / RUN, sum(figure[3] for figure in inputs.run)
        begun = Drifted(
            "inputs", "rff", inputs.run[0][0], span[1], inputs.usual, after, None, sample.p or 0.0, total
        )  # fmt: skip
        memory.episodes["inputs"] = Episode(begun, 1, MMD_MIN, rows=total)
        return [*drifted, begun]

    def _volume(self, number: int, rows: int) -> list[Drifted]:
        """Compare with the same window of the week before; after a change, with the changed level."""
        counts, week = self.memory.counts, WEEK_MS // self._window_ms
        counts.append(float(rows))
        if len(counts) <= week:
            return []
        ratio = math.log((rows + VOLUME_DAMPING) / (counts.pop(0) + VOLUME_DAMPING))
        span = number * self._window_ms, (number + 1) * self._window_ms
        change = self._watches["volume"].add(*span, ratio, 0.0, rows)
        drifted = self._last("volume", self.memory.monitors["volume"].history[-1].z / 1_000, span[1], rows)
        if change is None:
            return drifted
        step = change.deviation
        self._watches["volume"].rebase(step)
        since = len(counts) - (change.until_ms - change.since_ms) // self._window_ms
        factor = math.exp(step * VOLUME_DEVIATION)
        self.memory.counts = [count * factor for count in counts[:since]] + counts[since:]
        hours = (change.until_ms - change.since_ms) / 3_600_000
        after, damping = change.rows / hours, VOLUME_DAMPING * 3_600_000 / self._window_ms
        before = max((after + damping) / factor - damping, 0.0)
        return drifted + self._begin("volume", change._replace(before=before, after=after), step)

    def _moved(self, span: tuple[int, int], sums: I64) -> PopulationShift | None:
        if self._population is None:
            return None
        latest = windows.shift(sums, self._population.centre).tolist()
        former = self.memory.shift or latest
        self.memory.shift = [SHIFT_KEPT * a + (1 - SHIFT_KEPT) * b for a, b in zip(former, latest, strict=True)]
        return PopulationShift(*span, windows.row_count(sums), tuple(round(value) for value in self.memory.shift))
