"""What of a history is told: a range, a client, a model.

Whatever a decision depends on is folded in any case; a selection only leaves out what cannot change what is told.
"""

from collections.abc import Iterable
from dataclasses import replace as with_fields
from typing import NamedTuple

import numpy as np

from detector.events.finding import Event
from detector.frame import CloseFrame, ControlFrame, Frame, RowFrame
from models.reorder import take


class Selection(NamedTuple):
    """All of it must hold; by default everything is told.

    since_ms <= time of the event < until_ms. first <= offset in `requests` < end. clients : keys, empty for all; one
    client has several while pseudonym keys rotate. model : "" for all.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    first: int | None = None
    end: int | None = None
    clients: frozenset[int] = frozenset()
    model: str = ""

    @property
    def is_range(self) -> bool:
        return any(bound is not None for bound in (self.since_ms, self.until_ms, self.first, self.end))

    def narrowed(self, frame: Frame) -> Frame | None:
        """What of a frame `judge` needs. Other clients change nothing of what is said of one, while there is room."""
        if isinstance(frame, RowFrame):
            if self.model and frame.model != self.model:
                return None
            return self._of_clients(frame) if self.clients else frame
        if isinstance(frame, ControlFrame):
            wanted = not self.clients or frame.client in self.clients
        else:
            wanted = isinstance(frame, CloseFrame) or self.model in ("", frame.model)
        return frame if wanted else None

    def _of_clients(self, frame: RowFrame) -> RowFrame | None:
        chosen = np.isin(frame.rows.client, np.fromiter(sorted(self.clients), np.uint64))
        if not chosen.any():
            return None
        return frame if chosen.all() else with_fields(frame, rows=take(frame.rows, np.flatnonzero(chosen)))

    def counted(self, frame: RowFrame) -> RowFrame | None:
        """The rows that a summary of this range counts."""
        if not self.holds(frame.offset):
            return None
        times = frame.rows.time_ms
        inside = np.ones(len(times), np.bool_)
        if self.since_ms is not None:
            inside &= times >= self.since_ms
        if self.until_ms is not None:
            inside &= times < self.until_ms
        if inside.all():
            return frame
        return with_fields(frame, rows=take(frame.rows, np.flatnonzero(inside))) if inside.any() else None

    def told(self, events: Iterable[Event], offset: int) -> list[Event]:
        """Those of a frame's events that are asked for. offset : of the frame."""
        return [event for event in events if self.holds(offset) and self._tells(event)]

    def told_of_models(self, events: Iterable[Event]) -> list[Event]:
        """Of the drift of models, which no client and no frame brings about."""
        if self.clients or self.first is not None or self.end is not None:
            return []
        return [event for event in events if self._tells(event)]

    def holds(self, offset: int) -> bool:
        return (self.first is None or offset >= self.first) and (self.end is None or offset < self.end)

    def _tells(self, event: Event) -> bool:
        return (
            (self.since_ms is None or event.time_ms >= self.since_ms)
            and (self.until_ms is None or event.time_ms < self.until_ms)
            and (not self.clients or event.client_key in self.clients)
            and self.model in ("", event.model)
        )


EVERYTHING = Selection()
