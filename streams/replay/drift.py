"""Drift of models in a replay: `link`'s fold over all partitions."""

from collections.abc import Sequence

from detector import engine
from detector.drift import fold as drift
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, ShiftFrame
from streams.history.base import FrameBatch
from streams.replay.fold import Findings
from streams.replay.selection import Selection
from streams.replay.settings_changes import SettingsHistory


class DriftFold:
    """Adds events about models to `findings`; needs all partitions.

    Windows close at the close frames in the log. Raw records have none: there they close when event time has passed.
    A window closes under the settings in force at that offset, as long as artefacts and the length of windows never
    changed, else under the newest.
    """

    def __init__(self, settings: SettingsHistory, selection: Selection, findings: Findings) -> None:
        comparable = {(each.artefacts.hash, each.config.drift.window_s) for each in settings.settings}
        used = settings.settings if len(comparable) == 1 else [settings.newest]
        self._settings = [_drift_settings(each) for each in used]
        self._history = settings
        self._selection = selection
        self._findings = findings
        self._cuts: dict[int, dict[int, int]] = {}  # settings -> partition -> event time until which windows closed
        self._state = drift.LinkState(self._settings[0])
        self._cold = False

    def open(self, partition: int, blocks: Sequence[bytes], *, cold: bool) -> None:
        """Snapshots hold no state of drift, so a partition that begins with one is a cold start here."""
        self._cold |= cold or bool(blocks)

    def add(self, batch: FrameBatch) -> None:
        self.step(batch.frames)

    def step(self, frames: Sequence[Frame]) -> None:
        drift.step_all(self._state, frames)
        for frame in frames if len(self._settings) > 1 else ():
            if isinstance(frame, CloseFrame):
                cuts = self._cuts.setdefault(self._history.at(frame.partition, frame.offset), {})
                cuts[frame.partition] = max(frame.until_ms, cuts.get(frame.partition, frame.until_ms))

    @property
    def due_ms(self) -> int | None:
        """Event time until which windows are due to close; None if none is due."""
        return drift.due(self._state)

    def close_windows(self) -> list[ShiftFrame]:
        """Close windows. Returns the newest shift of each space, without partition and offset."""
        events, shifts = self._close()
        self._findings.add_events(self._selection.reported_of_models(events), cold=self._cold)
        return shifts

    def _close(self) -> tuple[list[Event], list[ShiftFrame]]:
        events: list[Event] = []
        for number, after in enumerate(self._settings[1:]):
            whole, reached = self._state.cuts, dict[int, int]()
            for cuts in (self._cuts.get(earlier, {}) for earlier in range(number + 1)):
                reached |= {partition: max(ms, reached.get(partition, ms)) for partition, ms in cuts.items()}
            self._state.cuts = reached
            events += drift.close(self._state).events
            self._state = drift.load(after, drift.dump(self._state))  # as a worker with other settings takes over
            self._state.cuts = whole
        closed = drift.close(self._state) if self._state.cuts else drift.close_due(self._state)
        return events + closed.events, list({shift.space: shift for shift in closed.shifts}.values())

    def finish(self) -> None:
        self.close_windows()


def _drift_settings(settings: engine.EngineSettings) -> drift.Settings:
    return drift.Settings.of(settings.config, settings.artefacts)
