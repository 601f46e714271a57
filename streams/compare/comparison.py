"""The comparison as a whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streams.analyst.events import Alert, DriftEvent, ThrottleEvent, read_events
from streams.analyst.labels import Label
from streams.compare.judged import Alarms, Score, Truth, alarms, scores
from streams.compare.minutes import HeldMinutes, held
from streams.compare.pairs import Alone, Changed, Pairs, pairs
from streams.config.config import Config
from streams.history.base import SourceError
from streams.replay import SUMMARY_FILE

NEEDED = ("classes", "false_alarms", "records", "rows", "clients")
HISTORY = ("records", "rows", "clients")
MADE_WITH = ("config_hash", "artefact_hash", "engine_version")


class Side(NamedTuple):
    """One replay, read from its folder. summary : as in docs/replay.md."""

    folder: Path
    summary: Mapping[str, Any]
    alerts: list[Alert]
    throttles: list[ThrottleEvent]
    drifts: list[DriftEvent]


class ReplaySide(msgspec.Struct, frozen=True):
    """One side, and how long it limited clients, in client-minutes; doors obey the `enforced` ones."""

    folder: str
    config_hash: str
    artefact_hash: str
    engine_version: str
    rows: int
    clients: int
    alerts: int
    throttles: int
    throttled_clients: int
    client_minutes: float
    client_minutes_enforced: float
    client_minutes_by_level: dict[str, float]


class Kind(msgspec.Struct, frozen=True):
    """Events of one kind: alert, throttle or drift."""

    kind: str
    same: int
    changed: int
    lost: int
    new: int


class DetectorComparison(msgspec.Struct, frozen=True):
    """One detector on both sides; lost, new and changed are alerts and throttle records together."""

    detector: str
    a_alerts: int
    b_alerts: int
    a_throttles: int
    b_throttles: int
    a_client_minutes: float
    b_client_minutes: float
    lost: int
    new: int
    changed: int


class Sides(msgspec.Struct, frozen=True):
    """Rows of A and of B."""

    a: list[Alarms]
    b: list[Alarms]


class Scores(msgspec.Struct, frozen=True):
    """Scores of A and of B, by detector."""

    a: list[Score]
    b: list[Score]


class Comparison(msgspec.Struct, frozen=True):
    """B compared with A. same_history : equal numbers of records, rows and clients. differs : hashes that differ.

    scores : None without labels. changed, lost, new : every event, in order of time.
    """

    a: ReplaySide
    b: ReplaySide
    same_history: bool
    differs: list[str]
    events: list[Kind]
    detectors: list[DetectorComparison]
    false_alarms: Sides
    labelled: int
    scores: Scores | None
    changed: list[Changed]
    lost: list[Alone]
    new: list[Alone]
    schema: str = "probewatch.comparison/1"


def read_side(folder: Path, config: Config) -> Side:
    """A replay's folder. Raises SourceError, EventError."""
    path = folder / SUMMARY_FILE
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; `probewatch replay SOURCE --out {folder}` writes it") from error
    except msgspec.MsgspecError as error:
        raise SourceError(f"{path}: not a summary of a replay: {error}") from error
    if missing := [name for name in NEEDED if name not in summary]:
        raise SourceError(f"{path}: {', '.join(missing)}: missing, since an older version wrote it; replay again")
    events = list(read_events(folder, config))
    return Side(
        folder,
        summary,
        [event for event in events if isinstance(event, Alert)],
        [event for event in events if isinstance(event, ThrottleEvent)],
        [event for event in events if isinstance(event, DriftEvent)],
    )


def compare(a: Side, b: Side, labels: Mapping[str, Label]) -> Comparison:
    paired = {
        "alert": pairs("alert", a.alerts, b.alerts),
        "throttle": pairs("throttle", a.throttles, b.throttles),
        "drift": pairs("drift", a.drifts, b.drifts),
    }
    a_held, b_held = held(a.throttles), held(b.throttles)
    truth = Truth(labels)
    kinds = [Kind(name, p.same, len(p.changed), len(p.lost), len(p.new)) for name, p in paired.items()]
    return Comparison(
        a=_replayed(a, a_held),
        b=_replayed(b, b_held),
        same_history=all(a.summary[name] == b.summary[name] for name in HISTORY),
        differs=[name for name in MADE_WITH if a.summary.get(name) != b.summary.get(name)],
        events=kinds,
        detectors=_detectors((a, b), (a_held, b_held), [paired["alert"], paired["throttle"]]),
        false_alarms=Sides(alarms(a.summary, a.throttles, truth), alarms(b.summary, b.throttles, truth)),
        labelled=len(labels),
        scores=Scores(scores(a.alerts, truth), scores(b.alerts, truth)) if labels else None,
        changed=[event for p in paired.values() for event in p.changed],
        lost=[event for p in paired.values() for event in p.lost],
        new=[event for p in paired.values() for event in p.new],
    )


def _replayed(side: Side, minutes: HeldMinutes) -> ReplaySide:
    made_with = [str(side.summary.get(name, "")) for name in MADE_WITH]
    return ReplaySide(
        str(side.folder), made_with[0], made_with[1], made_with[2], side.summary["rows"], side.summary["clients"],
        len(side.alerts), len(side.throttles), minutes.clients, minutes.union, minutes.enforced,
        dict(minutes.by_level),
    )  # fmt: skip


def _detectors(
    sides: tuple[Side, Side], minutes: tuple[HeldMinutes, HeldMinutes], paired: Sequence[Pairs]
) -> list[DetectorComparison]:
    a, b = sides
    alerts = [Counter(event.detector for event in side.alerts) for side in sides]
    throttles = [Counter(event.detector for event in side.throttles) for side in sides]
    lost = Counter(event.detector for p in paired for event in p.lost)
    new = Counter(event.detector for p in paired for event in p.new)
    changed = Counter(event.detector for p in paired for event in p.changed)
    names = {event.detector for side in (a, b) for event in [*side.alerts, *side.throttles]}
    return [
        DetectorComparison(
            name, alerts[0][name], alerts[1][name], throttles[0][name], throttles[1][name],
            minutes[0].by_detector.get(name, 0.0), minutes[1].by_detector.get(name, 0.0),
            lost[name], new[name], changed[name],
        )
        for name in sorted(names)
    ]  # fmt: skip
