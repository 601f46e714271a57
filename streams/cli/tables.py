"""Events, incidents, clients and feedback as rows of tables, and one incident in full."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from detector.events.finding import LEVELS
from streams.analyst.events import Alert, AlertFields, Event, ThrottleEvent
from streams.analyst.incidents import Client, Incident
from streams.analyst.index import EventIndex
from streams.analyst.labels import Label
from streams.analyst.suppress import Suppression
from streams.analyst.times import shown
from streams.analyst.waves import Wave, waves

Row = dict[str, Any]
ID_SHOWN = 12


def incident_row(incident: Incident) -> Row:
    held = f"{incident.action} until {shown(incident.until)}" if incident.action else ""
    return {
        "incident": incident.uid[:ID_SHOWN],
        "last": shown(incident.last),
        "client": incident.client,
        "model": incident.model,
        "detectors": ", ".join(incident.detectors),
        "level": LEVELS[incident.level],
        "in force": f"{held} (shadow)" if incident.mode == "shadow" else held,
        "alerts": incident.alerts,
        "state": incident.verdict or incident.state,
    }


def incident_rows(incidents: Sequence[Incident]) -> list[Row]:
    """In order of their last events, the incidents of a wave as one."""
    found: list[Incident | Wave] = [*(one for one in incidents if not one.wave), *waves(incidents)]
    found.sort(key=lambda one: (one.last, one.uid))
    return [incident_row(one) if isinstance(one, Incident) else _wave_row(one) for one in found]


def _wave_row(wave: Wave) -> Row:
    return {
        "incident": wave.uid[:ID_SHOWN],
        "last": shown(wave.last),
        "client": f"WAVE: {wave.clients:,} clients in {wave.incidents:,} incidents (--no-waves)",
        "model": wave.model,
        "detectors": ", ".join(wave.detectors),
        "level": LEVELS[wave.level],
        "in force": "",
        "alerts": wave.alerts,
        "state": f"{wave.open:,} open",
    }


def alert_row(alert: Alert) -> Row:
    return {
        "alert": alert.uid[:ID_SHOWN],
        "time": shown(alert.time),
        "incident": alert.incident[:ID_SHOWN],
        "client": alert.client,
        "model": alert.model,
        "detector": alert.detector,
        "level": LEVELS[alert.level],
        "mode": alert.mode,
        "what": "update" if alert.update else "new",
    }


def alert_fields(alert: Alert) -> AlertFields:
    return msgspec.convert(alert, AlertFields, from_attributes=True)


def throttle_row(throttle: ThrottleEvent) -> Row:
    record = throttle.record
    return {
        "decision": throttle.uid[:ID_SHOWN],
        "time": shown(throttle.time),
        "client": throttle.client,
        "model": throttle.model or "(every)",
        "action": record.action,
        "level": LEVELS[throttle.level],
        "reason": throttle.detector,
        "origin": record.origin,
        "mode": throttle.mode,
        "until": shown(record.expires_at),
        "incident": throttle.incident[:ID_SHOWN],
    }


def client_row(client: Client) -> Row:
    return {
        "client": client.client,
        "class": client.client_class,
        "models": ", ".join(client.models),
        "detectors": ", ".join(client.detectors),
        "last": shown(client.last),
        "level": LEVELS[client.level],
        "in force": f"{client.action} until {shown(client.until)}" if client.action else "",
        "incidents": client.incidents,
        "alerts": client.alerts,
        "verdicts": ", ".join(client.verdicts),
    }


def label_row(label: Label) -> Row:
    return {
        "incident": label.finding_uid[:ID_SHOWN],
        "verdict": label.verdict,
        "detectors": ", ".join(label.detectors),
        "client": label.client,
        "model": label.model,
        "labelled": shown(label.labelled_at),
        "reason": label.reason,
    }


def suppression_row(suppression: Suppression) -> Row:
    return {
        "suppression": suppression.suppression_id[:ID_SHOWN],
        "client": suppression.client or "(any)",
        "model": suppression.model or "(any)",
        "detector": suppression.detector or "(any)",
        "until": shown(suppression.until),
        "reason": suppression.reason,
    }


def incident_text(index: EventIndex, incident: Incident) -> Iterator[str]:
    """One incident for a person: what happened, how certain it is, the decision in force, and all events."""
    events = index.events_of(incident)
    alerts = [event for event in events if isinstance(event, Alert)]
    row = incident_row(incident)
    if alerts:
        last = alerts[-1]
        yield last.title
        yield last.description
        yield ""
    yield f"incident   {incident.uid}"
    yield f"client     {incident.client or '(none: about a model)'} {incident.client_class}".rstrip()
    yield f"model      {incident.model}"
    yield f"period     {shown(incident.first)} to {shown(incident.last)}"
    yield f"in force   {row['in force'] or 'nothing'}"
    if alerts and alerts[-1].budget:
        yield f"threshold  {sureness(alerts[-1])}"
    yield f"state      {_state(index, incident)}"
    yield f"hashes     configuration {events[-1].config_hash}, artefacts {events[-1].artefact_hash}"
    yield ""
    yield from (_line(event) for event in events)


def sureness(alert: Alert) -> str:
    """What the alert's threshold promises, in a sentence."""
    if alert.certified:
        return f"certified: alarms at most one ordinary client in {1 / alert.budget:,.0f} a day"
    aim, promised = f"{1 / alert.budget:,.0f}", f"{1 / alert.promised:,.0f}"
    return f"conditional: aims at one ordinary client in {aim} a day, promises one in {promised}"


def _state(index: EventIndex, incident: Incident) -> str:
    label = index.labels.get(incident.uid)
    if label is None:
        return incident.state
    return f"{label.verdict}, {shown(label.labelled_at)}: {label.reason}"


def _line(event: Event) -> str:
    if isinstance(event, ThrottleEvent):
        record = event.record
        what = f"{record.action}, until {shown(record.expires_at)}, {record.mode}, {record.reason}"
        return f"  {shown(event.time)}  decision {event.uid[:ID_SHOWN]}  {what}"
    severity = f"{event.severity}, {'update' if event.update else 'new'}" if isinstance(event, Alert) else ""
    return f"  {shown(event.time)}  alert    {event.uid[:ID_SHOWN]}  {severity}"
