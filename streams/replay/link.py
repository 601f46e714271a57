"""Drift of models in a replay: `link`'s fold over all partitions, under the settings of then."""

from collections.abc import Sequence

import msgspec

from detector import engine
from detector.drift import fold as drift
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, ShiftFrame
from streams.replay.settings_changes import Eras


class KeptLink(msgspec.Struct):
    """A Link. cuts : as there."""

    state: bytes
    cuts: dict[int, dict[int, int]]


class Link:
    """Windows close where the log says so; where nobody said it, as of raw records, when event time has passed them.

    A window closes under the settings in force where the log closes it, as long as artefacts and the length of windows
    stayed what they were, else under the newest. cuts : era -> partition -> event time, ms, up to which windows were
    closed while it lasted.
    """

    def __init__(self, eras: Eras) -> None:
        kept = {(one.artefacts.hash, one.config.drift.window_s) for one in eras.settings}
        self._settings = [_settings(one) for one in (eras.settings if len(kept) == 1 else [eras.newest])]
        self._eras = eras
        self._cuts: dict[int, dict[int, int]] = {}
        self._state = drift.LinkState(self._settings[0])

    def step(self, frames: Sequence[Frame]) -> None:
        drift.step_all(self._state, frames)
        for frame in frames if len(self._settings) > 1 else ():
            if isinstance(frame, CloseFrame):
                era = self._cuts.setdefault(self._eras.at(frame.partition, frame.offset), {})
                era[frame.partition] = max(frame.until_ms, era.get(frame.partition, frame.until_ms))

    @property
    def due_ms(self) -> int | None:
        """Until when windows are due to be closed, if any are."""
        return drift.due(self._state)

    def close(self) -> tuple[list[Event], list[ShiftFrame]]:
        """What closing windows gives; of the shifts the newest of each space, not yet placed."""
        events: list[Event] = []
        for era, after in enumerate(self._settings[1:]):
            whole, reached = self._state.cuts, dict[int, int]()
            for cuts in (self._cuts.get(number, {}) for number in range(era + 1)):
                reached |= {partition: max(ms, reached.get(partition, ms)) for partition, ms in cuts.items()}
            self._state.cuts = reached
            events += drift.close(self._state).events
            self._state = drift.load(after, drift.dump(self._state))  # as the next worker goes on
            self._state.cuts = whole
        closed = drift.close(self._state) if self._state.cuts else drift.close_due(self._state)
        return events + closed.events, list({shift.space: shift for shift in closed.shifts}.values())

    def dump(self) -> KeptLink:
        """Not behind `close`, where there are several settings."""
        return KeptLink(drift.dump(self._state), self._cuts)

    def load(self, kept: KeptLink) -> None:
        """Raises drift.StateError."""
        self._state, self._cuts = drift.load(self._settings[0], kept.state), kept.cuts


def _settings(of: engine.EngineSettings) -> drift.Settings:
    return drift.Settings.of(of.config, of.artefacts)
