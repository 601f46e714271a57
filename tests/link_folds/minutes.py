"""Rows of each minute, and of all minutes so far: a fold with windows of 60 s, events, and results for `requests`."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec

from detector.event_time import EventTime, StoredTime, in_time
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, ResultFrame, RowFrame
from detector.link_fold import Closed, DamagedStateError
from detector.settings import DetectionSettings
from models.artefacts.store import Artefacts

LATENESS_S, PATIENCE_S = 3_600, 10_800
"""Frames of tests hold up to an hour of one raw partition, and the next one's stand behind them."""


class _Stored(msgspec.Struct):
    time: StoredTime
    closed: int | None
    open: list[tuple[int, int]]
    total: int


class MinuteFold:
    name = "minutes"
    layout = 1
    window_ms = 60_000

    def __init__(self) -> None:
        self.late = 0
        self._time = EventTime(LATENESS_S, PATIENCE_S)
        self._closed: int | None = None
        self._open: dict[int, int] = {}
        self._total = 0

    @classmethod
    def of(cls, _config: DetectionSettings, _artefacts: Artefacts) -> "MinuteFold":
        return cls()

    @property
    def cuts(self) -> Mapping[int, int]:
        return self._time.cuts

    def step(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, CloseFrame):
                self._time.cut(frame)
            elif isinstance(frame, RowFrame) and (new := self._time.admit(frame)) is not None:
                clock, cut = new.clock_ms, new.cut_ms
                for time_ms in new.rows.time_ms.tolist():
                    if in_time(time_ms, clock, cut, self.window_ms, self._closed):  # type: ignore[arg-type]
                        minute = time_ms // self.window_ms
                        self._open[minute] = self._open.get(minute, 0) + 1
                    else:
                        self.late += 1

    def due(self, behind: Collection[int]) -> int | None:
        passed_ms = self._time.horizon(behind)
        if passed_ms is None:
            return None
        end = passed_ms // self.window_ms
        return end * self.window_ms if any(minute < end for minute in self._open) else None

    def close(self, until_ms: int) -> Closed:
        closed = Closed([], [], 0)
        end = until_ms // self.window_ms
        for minute in sorted(number for number in self._open if number < end):
            rows = self._open.pop(minute)
            self._total += rows
            end_ms = (minute + 1) * self.window_ms
            body = msgspec.json.encode({"fold": self.name, "minute": minute, "rows": rows, "total": self._total})
            name = hashlib.sha256(body).hexdigest()[:32]
            closed.events.append(
                Event("alert", name, b"minutes", body, (), 0, end_ms, "", self.name, 0, False, name, None)
            )
            closed.frames.append(ResultFrame(-1, -1, self.name, str(minute), end_ms, body))
        self._closed = max(end, self._closed or end)
        return closed._replace(windows=len(closed.events))

    def dump(self) -> bytes:
        opened = sorted(self._open.items())
        return msgspec.msgpack.encode(_Stored(self._time.dump(), self._closed, opened, self._total))

    def load(self, value: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(value, type=_Stored)
        except msgspec.MsgspecError as error:
            raise DamagedStateError("damaged state of minutes") from error
        self._time = EventTime(LATENESS_S, PATIENCE_S, stored.time)
        self._closed, self._open, self._total = stored.closed, dict(stored.open), stored.total
