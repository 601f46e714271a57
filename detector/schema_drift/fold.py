"""The fold of `link` that learns which fields are news: many clients send what fitted history did not have.

    step    a frame's rows -> a sample of each minute's clients, with the odd values, grids and flags of each
    close   the newest minutes that hold enough clients against the shares of ordinary ones -> a frame, and one alert

judge.py takes what is news out of its evidence, from the frame's offset on: docs/drift.md.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from detector.drift import records
from detector.event_time import Admitted, EventTime, StoredTime, in_time
from detector.frame import CloseFrame, Frame, RowFrame
from detector.link_fold import Closed, DamagedStateError
from detector.schema_drift.clients import (
    BITS,
    FLAGS,
    ODD,
    SIGNALS,
    Sample,
    counts,
    merged,
    samples,
    signals_of,
    together,
)
from detector.schema_drift.news import FOLD, News, frame_of
from detector.schema_drift.shares import MILLION, is_news, p_value
from detector.settings import DetectionSettings
from models.artefacts.store import Artefacts, ModelArtefact
from models.rows import FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE

WINDOW_MS = 60_000
LATENESS_S = 10
PATIENCE_S = 60
"""What comes later is not counted; a minute of other clients tells as much."""

CLIENTS_WANTED = 64
WINDOWS_MAX = 60
"""The newest windows that together hold so many clients are looked at, an hour at most."""

FLAG_KINDS = {
    FLAG_UNREADABLE: "unreadable",
    FLAG_UNJUDGED: "unjudged",
    FLAG_UNKNOWN_MODEL: "unknown_model",
    FLAG_AHEAD: "clock_ahead",
}

_Window = tuple[int, bytes, bytes]
"""Number, clients, signals."""


class _StoredSpace(msgspec.Struct):
    space: str
    open: list[_Window]
    recent: list[_Window]
    news: tuple[int, int, int]


class _Stored(msgspec.Struct):
    time: StoredTime
    closed: int | None
    spaces: list[_StoredSpace]


class _Space:
    """open, recent : windows, by number; recent ones are closed, in order. news : masks in force."""

    def __init__(self, artefact: ModelArtefact) -> None:
        self.artefact = artefact
        self.open: dict[int, Sample] = {}
        self.recent: list[tuple[int, Sample]] = []
        self.news = [0] * SIGNALS


class SchemaDriftFold:
    """A LinkFold (see there). All partitions and all spaces.

    closed : windows below this number are closed everywhere; None before the first.
    """

    name = FOLD
    layout = 1
    window_ms = WINDOW_MS

    def __init__(self, config: DetectionSettings, artefacts: Artefacts) -> None:
        self.late = 0
        self._hashes = config.hash, artefacts.hash
        self._time = EventTime(LATENESS_S, PATIENCE_S)
        self._closed: int | None = None
        self._spaces = {model.space: _Space(model) for _, model in sorted(artefacts.models.items())}

    @classmethod
    def of(cls, config: DetectionSettings, artefacts: Artefacts) -> "SchemaDriftFold":
        return cls(config, artefacts)

    @property
    def cuts(self) -> Mapping[int, int]:
        return self._time.cuts

    def step(self, frames: Sequence[Frame]) -> None:
        """Rows of many frames are sampled together, which small frames need."""
        admitted: dict[str, list[Admitted]] = {}
        for frame in frames:
            if isinstance(frame, CloseFrame):
                self._time.cut(frame)
            elif isinstance(frame, RowFrame) and frame.space in self._spaces:
                new = self._time.admit(frame)
                if new is not None:
                    admitted.setdefault(frame.space, []).append(new)
        for space, parts in admitted.items():
            self._count(self._spaces[space], parts)

    def _count(self, space: _Space, parts: Sequence[Admitted]) -> None:
        counted = [part.rows.count for part in parts]
        time_ms = np.concatenate([part.rows.time_ms for part in parts])
        clocks, cuts = (np.repeat([part[place] for part in parts], counted) for place in (1, 2))
        wanted = in_time(time_ms, clocks, cuts, WINDOW_MS, self._closed)
        self.late += len(wanted) - int(np.count_nonzero(wanted))
        client = np.concatenate([part.rows.client for part in parts])[wanted]
        signals = np.concatenate([signals_of(part.rows) for part in parts])[wanted]
        for number, sample in samples(time_ms[wanted] // WINDOW_MS, client, signals):
            held = space.open.get(number)
            space.open[number] = sample if held is None else merged(held, sample)

    def due(self, behind: Collection[int]) -> int | None:
        passed_ms = self._time.horizon(behind)
        if passed_ms is None:
            return None
        end = passed_ms // WINDOW_MS
        held = any(number < end for space in self._spaces.values() for number in space.open)
        return end * WINDOW_MS if held else None

    def close(self, until_ms: int) -> Closed:
        """Window by window, spaces by name."""
        closed = Closed([], [], 0)
        end = until_ms // WINDOW_MS
        due = sorted((n, name) for name, space in self._spaces.items() for n in space.open if n < end)
        for number, name in due:
            space = self._spaces[name]
            space.recent.append((number, space.open.pop(number)))
            self._compare(space, number, closed)
        self._closed = max(end, self._closed or end)
        return closed._replace(windows=len({number for number, _ in due}))

    def _compare(self, space: _Space, number: int, closed: Closed) -> None:
        """The newest windows with the reference; what stands out is news from here on."""
        looked_at = _enough(space, number)
        of_clients, had = len(looked_at.client), counts(looked_at)
        shares, before = space.artefact.reference.odd_shares, list(space.news)
        for signal, bit in np.argwhere(had > 0).tolist():
            clients, share = int(had[signal, bit]), int(shares[signal, bit])
            if space.news[signal] >> bit & 1 or not is_news(clients, of_clients, share):
                continue
            space.news[signal] |= 1 << bit
            finding = self._finding(space, signal, bit, (clients, of_clients, share), number)
            closed.events.extend(records.events(finding))
        if space.news != before:
            news = News(space.artefact.space, *space.news)
            closed.frames.append(frame_of(news, (number + 1) * WINDOW_MS))

    def _finding(
        self, space: _Space, signal: int, bit: int, seen: tuple[int, int, int], number: int
    ) -> records.DriftFinding:
        clients, of_clients, share = seen
        since = next(n for n, sample in space.recent if (sample.signals[:, signal] >> np.uint32(bit) & 1).any())
        return records.DriftFinding(
            model=space.artefact.model,
            space=space.artefact.space,
            statistic=_statistic(space.artefact, signal, bit),
            test="binomial",
            since_ms=since * WINDOW_MS,
            until_ms=(number + 1) * WINDOW_MS,
            before=share / MILLION,
            after=clients / of_clients,
            deviation=None,
            p_or_threshold=p_value(clients, of_clients, share),
            rows=clients,
            lasting=True,
            config_hash=self._hashes[0],
            artefact_hash=self._hashes[1],
            field="" if signal == FLAGS else _field(space.artefact, bit),
            of_clients=of_clients,
        )

    def dump(self) -> bytes:
        spaces = [
            _StoredSpace(name, _packed(sorted(space.open.items())), _packed(space.recent), tuple(space.news))  # type: ignore[arg-type]  # SIGNALS of them
            for name, space in sorted(self._spaces.items())
            if space.open or space.recent or any(space.news)
        ]
        return msgspec.msgpack.encode(_Stored(self._time.dump(), self._closed, spaces))

    def load(self, value: bytes) -> None:
        """Drops spaces whose artefacts are gone: their news went into the new ones."""
        try:
            stored = msgspec.msgpack.decode(value, type=_Stored)
            for kept in stored.spaces:
                if kept.space in self._spaces:
                    space = self._spaces[kept.space]
                    space.open, space.recent = dict(_unpacked(kept.open)), _unpacked(kept.recent)
                    space.news = list(kept.news)
        except (msgspec.MsgspecError, ValueError) as error:
            raise DamagedStateError(f"damaged state of {self.name}: {type(error).__name__}") from error
        self._time = EventTime(LATENESS_S, PATIENCE_S, stored.time)
        self._closed = stored.closed


def _enough(space: _Space, number: int) -> Sample:
    """All clients of the newest windows that together hold enough; older ones are forgotten."""
    recent = [window for window in space.recent if window[0] > number - WINDOWS_MAX]
    newest: list[Sample] = []
    for _, sample in reversed(recent):
        newest.append(sample)
        if len(together(newest).client) >= CLIENTS_WANTED:
            break
    space.recent = recent[len(recent) - len(newest) :]
    return together(newest)


def _statistic(artefact: ModelArtefact, signal: int, bit: int) -> str:
    if signal == FLAGS:
        return FLAG_KINDS[1 << bit]
    if signal == ODD:
        return "unseen_categories" if bit in artefact.encoder.categories else "beyond_range"
    return "off_grid"


def _field(artefact: ModelArtefact, bit: int) -> str:
    """The last bit stands for all further fields."""
    names = artefact.encoder.field_names
    return names[bit] if bit < BITS - 1 or len(names) == BITS else f"{names[bit]} or a later one"


def _packed(windows: Sequence[tuple[int, Sample]]) -> list[_Window]:
    return [(number, sample.client.tobytes(), sample.signals.tobytes()) for number, sample in windows]


def _unpacked(windows: Sequence[_Window]) -> list[tuple[int, Sample]]:
    """Raises ValueError for what is no sample."""
    return [
        (number, Sample(np.frombuffer(client, np.uint64), np.frombuffer(signals, np.uint32).reshape(-1, SIGNALS)))
        for number, client, signals in windows
    ]
