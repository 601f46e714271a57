"""The rows around each alert, as the fold saw them: a second reading of the sources, for the alarmed clients only.

A row is described by its distance to earlier rows, by the fields that changed and by its evidence, never by its input.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any, NamedTuple

from detector import engine
from detector.events.encode import moment
from detector.events.escape import json_bytes
from detector.events.finding import Event
from detector.frame import Frame, RowFrame
from detector.trace.trace import Step, Trace, follow
from models.rows import Rows
from streams import files
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import Plan, frame_ranges
from streams.replay.link import ReplayedLink
from streams.replay.records import Records
from streams.replay.run import Watch, progress_line, read_frames, read_records
from streams.replay.selection import Selection

EVIDENCE_FILE = "evidence.jsonl"


class EvidenceRows(NamedTuple):
    """The rows of one alert. decided : index of the deciding one among them."""

    alert: Event
    trace: Trace
    decided: int
    rows: list[Step]


class ClientFrames:
    """Frames of some clients in the order of the fold, and the snapshots with which partitions began."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.states: dict[int, engine.PartitionState] = {}

    def step(self, state: engine.PartitionState, frames: Sequence[Frame]) -> list[Event]:
        """Takes the engine's place in a Fold."""
        if state.block_offset.any():
            self.states.setdefault(state.partition, state)
        self.frames += map(_owned, frames)
        return []


def gather(plan: Plan, clients: Collection[int]) -> ClientFrames:
    """Read the sources again and keep the frames of some clients. Raises SourceError, StoppedError."""
    gathered, findings = ClientFrames(), Findings()
    if not clients:
        return gathered
    only = Selection(clients=frozenset(clients))
    fold = Fold(plan.settings, only, findings, step=gathered.step)
    watch = Watch(findings, progress_line(plan), plan.stops)
    ranges = frame_ranges(plan._replace(selection=plan.selection._replace(clients=only.clients)))
    if ranges is None:
        link = ReplayedLink(plan.settings, only, Findings())  # raw records hold no shifts of populations
        read_records(plan.sources, Records(plan, findings, fold, link), watch)
    else:
        read_frames(ranges, [fold], watch)
    return gathered


def _owned(frame: Frame) -> Frame:
    """Rows may be slices of a whole row group, which would stay in memory with them."""
    if not isinstance(frame, RowFrame):
        return frame
    return with_fields(frame, rows=Rows(**{name: column.copy() for name, column in frame.rows._asdict().items()}))


def around(
    alerts: Sequence[Event], gathered: ClientFrames, settings: engine.EngineSettings, n: int
) -> Iterator[EvidenceRows]:
    """For each alert about a client, the n rows of its space before the deciding one and the n rows after it."""
    clients = frozenset(alert.client_key for alert in alerts)
    traces = follow(settings, gathered.frames, sorted(clients), states=gathered.states)
    positions = {
        (key, trace.model, source, offset, index): (trace, row)
        for (key, _), trace in traces.items()
        for row, (source, offset, index) in enumerate(
            zip(trace.sources, trace.rows.offset.tolist(), trace.rows.index.tolist(), strict=True)
        )
    }
    for alert in alerts:
        at = alert.position
        if at is None:  # about a model
            continue
        row = positions.get((alert.client_key, alert.model, at.source, at.offset, at.index))
        if row is not None:
            trace, decided = row
            first, last = max(0, decided - n), min(trace.rows.count, decided + n + 1)
            yield EvidenceRows(alert, trace, decided - first, [trace.moment(number) for number in range(first, last)])


def write_evidence(rows: Iterator[EvidenceRows], out: Path) -> None:
    """evidence.jsonl, a line for each alert."""
    files.write_lines(out / EVIDENCE_FILE, map(_line, rows))


def _line(around: EvidenceRows) -> bytes:
    return json_bytes(
        {
            "schema": "probewatch.evidence/1",
            "alert_uid": around.alert.id,
            "client": around.trace.client,
            "model": around.trace.model,
            "space": around.trace.space,
            "thresholds": [milli / 1000 for milli in around.trace.thresholds[1:]],
            "decided": around.decided,
            "rows": [_row(around.trace, row) for row in around.rows],
        }
    )


def _row(trace: Trace, row: Step) -> dict[str, Any]:
    nearest = None if row.nearest is None else trace.rows.request_id(row.nearest)
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
