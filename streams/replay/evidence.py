"""The rows around each alert, as the fold saw them: a second look at the clients that were alarmed, and at nobody else.

Inputs do not stand there: what a row was close to, which fields differed and what each process made of it does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from detector import engine
from detector.events.encode import moment
from detector.events.escape import json_bytes
from detector.events.finding import Event
from detector.frame import Frame, RowFrame
from detector.trace.trace import Step, Trace, follow
from models.rows import Rows
from streams.replay.fold import Fold
from streams.replay.outcome import write_lines
from streams.replay.selection import Selection
from streams.replay.settings_changes import Eras

EVIDENCE_FILE = "evidence.jsonl"


class Around(NamedTuple):
    """The rows of one alert. decided : place of the deciding one among them."""

    alert: Event
    story: Trace
    decided: int
    rows: list[Step]


class Gathering(Fold):
    """Keeps the frames of some clients instead of judging them; the rest of the fold is as ever."""

    def __init__(self, eras: Eras, clients: frozenset[int], *, link: bool) -> None:
        super().__init__(eras, Selection(clients=clients), link=link)
        self.frames: list[Frame] = []
        self.states: dict[int, engine.PartitionState] = {}

    def open(self, partition: int, blocks: Sequence[bytes], *, cold: bool) -> None:
        super().open(partition, blocks, cold=cold)
        if blocks:
            self.states[partition] = self._states[partition]

    def _judged(self, frames: Sequence[Frame]) -> None:
        self.frames += map(_owned, frames)


def _owned(frame: Frame) -> Frame:
    """Rows may be slices of a whole row group, which would stay in memory with them."""
    if not isinstance(frame, RowFrame):
        return frame
    return with_fields(frame, rows=Rows(**{name: column.copy() for name, column in frame.rows._asdict().items()}))


def around(alerts: Sequence[Event], gathered: Gathering, settings: engine.EngineSettings, n: int) -> Iterator[Around]:
    """For each alert about a client the n rows before and behind the deciding one, those of its space."""
    clients = frozenset(alert.client_key for alert in alerts)
    stories = follow(settings, gathered.frames, sorted(clients), states=gathered.states)
    places = {
        (key, story.model, source, offset, index): (story, place)
        for (key, _), story in stories.items()
        for place, (source, offset, index) in enumerate(
            zip(story.sources, story.rows.offset.tolist(), story.rows.index.tolist(), strict=True)
        )
    }
    for alert in alerts:
        at = _decision.decode(alert.value)
        found = places.get((alert.client_key, at.model, *at.position))
        if found is not None:
            story, place = found
            first, last = max(0, place - n), min(story.rows.count, place + n + 1)
            yield Around(alert, story, place - first, [story.moment(number) for number in range(first, last)])


def write_evidence(found: Iterator[Around], out: Path) -> None:
    """evidence.jsonl, a line for each alert."""
    write_lines(out / EVIDENCE_FILE, map(_line, found))


def _line(one: Around) -> bytes:
    return json_bytes(
        {
            "schema": "probewatch.evidence/1",
            "alert_uid": one.alert.id,
            "client": one.story.client,
            "model": one.story.model,
            "space": one.story.space,
            "thresholds": [milli / 1000 for milli in one.story.thresholds[1:]],
            "decided": one.decided,
            "rows": [_row(one.story, row) for row in one.rows],
        }
    )


def _row(story: Trace, row: Step) -> dict[str, Any]:
    nearest = None if row.nearest is None else story.rows.request_id(row.nearest)
    return {
        "time": moment(row.time_ms),
        "source": row.source,
        "offset": row.offset,
        "index": row.index,
        "request_id": row.request_id,
        "rows_seen": row.rows_seen,
        "statistic": row.statistic / 1000,
        "evidence_nats": {name: milli / 1000 for name, milli in row.evidence.items() if milli > 0},
        **{name: _rounded(getattr(row, name)) for name in ("score", "margin", "novelty")},
        "changed": row.changed,
        "nearest": nearest,
        "distance": round(row.distance, 4),
    }


def _rounded(number: float | None) -> float | None:
    """They came as float32."""
    return None if number is None else round(number, 6)


class _Resource(msgspec.Struct):
    role_id: int
    name: str = ""


class _Data(msgspec.Struct):
    source: str = ""
    offset: int = -1
    index: int = -1


class _Evidence(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


class _Decision(msgspec.Struct):
    """Where an alert says that it fell."""

    resources: list[_Resource]
    evidences: list[_Evidence] = []

    @property
    def model(self) -> str:
        return next((resource.name for resource in self.resources if resource.role_id == 1), "")

    @property
    def position(self) -> tuple[str, int, int]:
        data = self.evidences[0].data if self.evidences else _Data()
        return data.source, data.offset, data.index


_decision = msgspec.json.Decoder(_Decision)
