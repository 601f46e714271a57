"""How far the clocks of those who write raw topics run behind the broker's."""

import time
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import structlog

from detector.frame import RowFrame
from models.rows import I64
from streams.history.order import topics_of
from streams.metrics import Metrics
from streams.sketch.columns import AHEAD_MS

LOOK_S = 10.0
REPEAT_S = 600.0
QUANTILE = 0.99
"""One gateway of many is wrong first."""

log = structlog.get_logger("probewatch")


class SourceClocks:
    """Fed with frames, it sets a gauge for each raw topic every LOOK_S, and warns of records that arrive old."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._late_ms: dict[str, list[I64]] = defaultdict(list)
        self._looked = time.monotonic()
        self._warned: dict[str, float] = {}

    def add(self, frames: Iterable[RowFrame]) -> None:
        for frame in frames:
            known = frame.rows.append_ms > 0
            if known.any():
                late_ms = frame.rows.append_ms - frame.rows.time_ms
                for source, topic in topics_of(frame).items():
                    self._late_ms[topic].append(late_ms[known & (frame.rows.source == source)])
        if time.monotonic() - self._looked >= LOOK_S:
            self.look()

    def look(self) -> None:
        """Tell of what has come since the last time."""
        self._looked = time.monotonic()
        for topic, parts in self._late_ms.items():
            late_ms = np.concatenate(parts)
            if not len(late_ms):
                continue
            behind_s = max(0.0, float(np.quantile(late_ms, QUANTILE, method="lower")) / 1000)
            self._metrics.behind_s.labels(topic).set(behind_s)
            if behind_s * 1000 > AHEAD_MS:
                self._warn(topic, behind_s)
        self._late_ms.clear()

    def _warn(self, topic: str, behind_s: float) -> None:
        if self._looked - self._warned.get(topic, float("-inf")) >= REPEAT_S:
            self._warned[topic] = self._looked
            log.warning(
                "records are old when they arrive: the clock of a gateway runs behind, or it holds records back",
                topic=topic,
                behind_s=round(behind_s),
            )
