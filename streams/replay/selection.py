"""Which events of a history are reported: those of a range, of a client, of a model.

Everything that a reported decision depends on is folded in any case.
"""

from collections.abc import Iterable
from dataclasses import replace as with_fields
from typing import NamedTuple

import numpy as np

from detector.events.finding import Event
from detector.frame import CloseFrame, ControlFrame, Frame, ResultFrame, RowFrame
from models.reorder import take


class Selection(NamedTuple):
    """All conditions must hold; by default every event is reported.

    since_ms <= time of the event < until_ms. first <= offset in `requests` < end. clients : keys, empty for all; one
    client has several while pseudonym keys rotate. model : "" for all.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    first: int | None = None
    end: int | None = None
    clients: frozenset[int] = frozenset()
    model: str = ""

    def narrowed(self, frame: Frame) -> Frame | None:
        """The part that `judge` needs: other clients do not change a client's events, while there is room."""
        if isinstance(frame, RowFrame):
            if self.model and frame.model != self.model:
                return None
            return self._of_clients(frame) if self.clients else frame
        if isinstance(frame, ControlFrame):
            wanted = not self.clients or frame.client in self.clients
        else:
            wanted = isinstance(frame, CloseFrame | ResultFrame) or self.model in ("", frame.model)
        return frame if wanted else None

    def _of_clients(self, frame: RowFrame) -> RowFrame | None:
        chosen = np.isin(frame.rows.client, np.fromiter(sorted(self.clients), np.uint64))
        if not chosen.any():
            return None
        return frame if chosen.all() else with_fields(frame, rows=take(frame.rows, np.flatnonzero(chosen)))

    def counted(self, frame: RowFrame) -> RowFrame | None:
        """The rows of a frame that the summary counts."""
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

    def reported(self, events: Iterable[Event], offset: int) -> list[Event]:
        """The events of a frame that are reported. offset : of the frame."""
        return [event for event in events if self.holds(offset) and self._matches(event)]

    def reported_of_models(self, events: Iterable[Event]) -> list[Event]:
        """The events about drift of models that are reported; they belong to no client and no offset."""
        if self.clients or self.first is not None or self.end is not None:
            return []
        return [event for event in events if self._matches(event)]

    def holds(self, offset: int) -> bool:
        return (self.first is None or offset >= self.first) and (self.end is None or offset < self.end)

    def _matches(self, event: Event) -> bool:
        return (
            (self.since_ms is None or event.time_ms >= self.since_ms)
            and (self.until_ms is None or event.time_ms < self.until_ms)
            and (not self.clients or event.client_key in self.clients)
            and self.model in ("", event.model)
        )


EVERYTHING = Selection()
