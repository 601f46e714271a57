"""The folds of `link` in a replay, over all partitions."""

from collections.abc import Sequence

from detector import engine
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, ResultFrame, ShiftFrame
from detector.link import LinkState
from streams.history.base import FrameBatch
from streams.replay.fold import Findings
from streams.replay.selection import Selection
from streams.replay.settings_changes import SettingsHistory


class ReplayedLink:
    """Adds the events of all folds of `link` to `findings`; needs all partitions.

    Windows close at the close frames in the log. Raw records have none: there they close when event time has passed.
    A window closes under the settings in force at that offset, as long as artefacts and the length of windows never
    changed, else under the newest.
    """

    def __init__(self, settings: SettingsHistory, selection: Selection, findings: Findings) -> None:
        comparable = {_basis(each) for each in settings.settings}
        self._settings = list(settings.settings) if len(comparable) == 1 else [settings.newest]
        self._history = settings
        self._selection = selection
        self._findings = findings
        self._cuts: dict[int, dict[str, dict[int, int]]] = {}  # settings -> fold -> partition -> until_ms
        self._state = _empty(self._settings[0])
        self._cold = False

    def open(self, partition: int, blocks: Sequence[bytes], *, cold: bool) -> None:
        """Snapshots hold no state of `link`, so a partition that begins with one is a cold start here."""
        self._cold |= cold or bool(blocks)

    def add(self, batch: FrameBatch) -> None:
        self.step(batch.frames)

    def step(self, frames: Sequence[Frame]) -> None:
        self._state.step(frames)
        for frame in frames if len(self._settings) > 1 else ():
            if isinstance(frame, CloseFrame):
                of_settings = self._cuts.setdefault(self._history.at(frame.partition, frame.offset), {})
                cuts = of_settings.setdefault(frame.fold, {})
                cuts[frame.partition] = max(frame.until_ms, cuts.get(frame.partition, frame.until_ms))

    def due(self) -> list[CloseFrame]:
        """What `link` would write into every partition now."""
        return self._state.due()

    def close_windows(self) -> list[ShiftFrame | ResultFrame]:
        """Close windows. Returns what `link` would write into every partition then."""
        events, frames = self._close()
        self._findings.add_events(self._selection.reported_of_models(events), cold=self._cold)
        return frames

    def _close(self) -> tuple[list[Event], list[ShiftFrame | ResultFrame]]:
        events: list[Event] = []
        for number, after in enumerate(self._settings[1:]):
            events += self._state.close(self._cuts_until(number)).events
            stored = self._state.dump()  # as a worker with other settings takes over
            self._state = _empty(after)
            self._state.load(stored)
        closed = self._state.close_due()
        return events + closed.events, closed.frames

    def _cuts_until(self, last: int) -> dict[str, dict[int, int]]:
        """Of all settings up to this number."""
        until: dict[str, dict[int, int]] = {}
        for of_settings in (self._cuts.get(number, {}) for number in range(last + 1)):
            for fold, cuts in of_settings.items():
                reached = until.setdefault(fold, {})
                reached |= {partition: max(ms, reached.get(partition, ms)) for partition, ms in cuts.items()}
        return until

    def finish(self) -> None:
        self.close_windows()


def _empty(settings: engine.EngineSettings) -> LinkState:
    return LinkState.of(settings.config, settings.artefacts)


def _basis(settings: engine.EngineSettings) -> tuple[object, ...]:
    """What open windows depend on."""
    return settings.artefacts.hash, *(fold.window_ms for fold in _empty(settings).folds)
