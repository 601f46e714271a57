"""Live: do the records of a client arrive in order of time, and from one raw partition?"""

import time

import numpy as np
import structlog

from detector.frame import RowFrame
from streams.history.order import LogOrder, topics_of
from streams.metrics import Metrics

SAMPLED = 16
"""One client in so many is watched, by its keyed hash."""

REMEMBERED = 8_192
ROWS_MIN = 1_000
REPEAT_S = 600.0

log = structlog.get_logger("probewatch")


class OrderWatch:
    """Fed with the frames that `judge` reads, it sets two gauges, and warns of what history would be warned of too."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._rows = 0
        self._met: dict[tuple[int, str], int] = {}
        self._split: set[tuple[int, str]] = set()
        self._warned = float("-inf")

    def add(self, frame: RowFrame) -> None:
        rows = frame.rows
        self._rows += rows.count
        chosen = np.flatnonzero((rows.client >> np.uint64(20)) % np.uint64(SAMPLED) == 0)
        if not len(chosen):
            return
        if len(self._met) > REMEMBERED:
            self._met.clear()
            self._split.clear()
        topics = topics_of(frame)
        for client, source in {*zip(rows.client[chosen].tolist(), rows.source[chosen].tolist(), strict=True)}:
            about = (client, topics[source])
            if self._met.setdefault(about, source) != source:
                self._split.add(about)

    def look(self, back: int) -> None:
        """back : rows that went back in time since the partitions were assigned."""
        clients, split = len(self._met), len(self._split)
        self._metrics.back.set(back)
        self._metrics.split.set(split / clients if clients else 0.0)
        now = time.monotonic()
        if self._rows < ROWS_MIN or now - self._warned < REPEAT_S:
            return
        for text in LogOrder(max(self._rows, back), back, clients, split).warnings():
            self._warned = now
            log.warning(text)
