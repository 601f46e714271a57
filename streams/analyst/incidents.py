"""Incidents: the events of one `finding_info.uid`, and their state now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from probewatch_door.in_force import in_force, strictness, timelines
from probewatch_door.record import ACTIONS, LIMITING, Time
from streams.analyst.events import Alert, DriftEvent, Event, ThrottleEvent, order
from streams.analyst.labels import Label, Verdict

DAY = timedelta(days=1)
"""The engine opens a new incident this long after the last decision expired."""

State = Literal["open", "closed", "labelled"]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One client and model, from the first event to the last.

    level : the highest reached. level_now, action, mode, until : of the strictest decision in force; 0, "" and null for
    none. state : labelled once a person gave a verdict; closed when its decisions were lifted, or a day after the last
    one expired. verdict : "" for none. wave : uid of the first incident of the wave that it is part of, "" for none.
    """

    uid: str
    client: str
    client_class: str
    model: str
    title: str
    detectors: tuple[str, ...]
    first: Time
    last: Time
    level: int
    level_now: int
    action: str
    mode: str
    until: Time | None
    alerts: int
    throttles: int
    certified: bool
    state: State
    verdict: Verdict | Literal[""]
    wave: str = ""


def group(events: Iterable[Event], labels: Mapping[str, Label], at: datetime) -> list[Incident]:
    """Every incident, in order of its last event. at : now, on the clock that decisions expire by."""
    members: dict[str, list[Event]] = {}
    for event in events:
        if not isinstance(event, DriftEvent):
            members.setdefault(event.incident, []).append(event)
    incidents = [_incident(uid, ordered(group), labels.get(uid), at) for uid, group in members.items()]
    return sorted(incidents, key=lambda incident: (incident.last, incident.uid))


def ordered(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=order)


def _incident(uid: str, events: list[Event], label: Label | None, at: datetime) -> Incident:
    alerts = [event for event in events if isinstance(event, Alert)]
    throttles = [event for event in events if isinstance(event, ThrottleEvent)]
    last, last_alert = events[-1], alerts[-1] if alerts else None
    force = max(holding(throttles, at), key=lambda event: strictness(event.record), default=None)
    state: State = "labelled" if label else "open" if force or at < _ends(events) + DAY else "closed"
    return Incident(
        uid=uid,
        client=last.client,
        client_class=last_alert.client_class if last_alert else "",
        model=next((event.model for event in reversed(events) if event.model), ""),
        title=last_alert.title if last_alert else "",
        detectors=tuple(dict.fromkeys(event.detector for event in events if event.detector != "person")),
        first=events[0].time,
        last=last.time,
        level=max(event.level for event in events),
        level_now=force.level if force else 0,
        action=force.record.action if force else "",
        mode=force.mode if force else "",
        until=force.record.expires_at if force else None,
        alerts=len(alerts),
        throttles=len(throttles),
        certified=all(alert.certified for alert in alerts) and bool(alerts),
        state=state,
        verdict=label.verdict if label else "",
    )


def holding(throttles: Iterable[ThrottleEvent], at: datetime) -> list[ThrottleEvent]:
    """Decisions in force, in order of time: of each client, model and origin at most one, as at a door."""
    events = sorted(throttles, key=order)
    current = (in_force(timeline, at) for timeline in timelines(event.record for event in events).values())
    uids = {record.decision_id for record in current if record is not None}
    return [event for event in events if event.uid in uids]


def _ends(events: Sequence[Event]) -> datetime:
    """When the last decision expires; long ago if all were lifted. Without decisions: the last event."""
    records = (event.record for event in events if isinstance(event, ThrottleEvent))
    newest = [timeline[-1] for timeline in timelines(records).values()]
    if newest and all(record.action == "lift" for record in newest):
        return datetime.min.replace(tzinfo=events[-1].time.tzinfo)
    return max((record.expires_at for record in newest if record.action != "lift"), default=events[-1].time)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """One client over all models. Fields as in Incident; `incidents` also counts those without an alert."""

    client: str
    client_class: str
    models: tuple[str, ...]
    detectors: tuple[str, ...]
    first: Time
    last: Time
    level: int
    level_now: int
    action: str
    until: Time | None
    incidents: int
    alerts: int
    throttles: int
    verdicts: tuple[str, ...]


def clients(incidents: Iterable[Incident]) -> list[Client]:
    """In order of the last event. Incidents about a model alone (drift) name no client and are left out."""
    by_client: dict[str, list[Incident]] = {}
    for incident in incidents:
        if incident.client:
            by_client.setdefault(incident.client, []).append(incident)
    return sorted((_client(name, group) for name, group in by_client.items()), key=lambda one: (one.last, one.client))


def _client(name: str, incidents: list[Incident]) -> Client:
    strictest = max(incidents, key=_strictness)
    return Client(
        client=name,
        client_class=next((one.client_class for one in reversed(incidents) if one.client_class), ""),
        models=tuple(sorted({one.model for one in incidents if one.model})),
        detectors=tuple(sorted({name for one in incidents for name in one.detectors})),
        first=min(one.first for one in incidents),
        last=max(one.last for one in incidents),
        level=max(one.level for one in incidents),
        level_now=strictest.level_now,
        action=strictest.action,
        until=strictest.until,
        incidents=len(incidents),
        alerts=sum(one.alerts for one in incidents),
        throttles=sum(one.throttles for one in incidents),
        verdicts=tuple(sorted({one.verdict for one in incidents if one.verdict})),
    )


def _strictness(incident: Incident) -> tuple[bool, int, int]:
    rank = ACTIONS.index(incident.action) if incident.action in ACTIONS else -1
    return incident.mode == "enforce" and incident.action in LIMITING, rank, incident.level_now
