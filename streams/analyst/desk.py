"""The desk: events with what people said of them, grouped, filtered, and found by the beginning of an id."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from detector.events.ocsf import CLASS_UID
from probewatch_door.record import Throttle
from streams.analyst.errors import EventError
from streams.analyst.events import KAFKA, Alert, Event, Filter, Place, ThrottleEvent, now, read_events
from streams.analyst.feedback import beside, read
from streams.analyst.incidents import Client, Incident, clients, group, holding, ordered
from streams.analyst.labels import Label, labels_in
from streams.analyst.suppress import Suppression, hidden, suppressions_in
from streams.config.config import Config

ID_DIGITS_MIN = 4

OcsfFinding = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="OCSF 1.8, see docs/formats/alerts.md.",
        extra_json_schema={
            "required": ["class_uid", "metadata", "finding_info", "unmapped"],
            "properties": {"class_uid": {"const": CLASS_UID}},
        },
    ),
]


class IncidentDetail(msgspec.Struct, frozen=True):
    """One incident in full: its alerts and decisions as they were written, and its label, null if it has none."""

    incident: Incident
    alerts: list[OcsfFinding]
    throttles: list[Throttle]
    label: Label | None


class ClientDetail(msgspec.Struct, frozen=True):
    """One client in full. client : null if nothing was decided about it."""

    client: Client | None
    incidents: list[IncidentDetail]


class Desk(NamedTuple):
    """events : in order of time. at : now; in files the time of the last event."""

    place: Place
    at: datetime
    events: list[Event]
    incidents: list[Incident]
    labels: dict[str, Label]
    suppressions: list[Suppression]

    def alarmed(self, wanted: Filter, *, suppressed: bool = False) -> list[Incident]:
        """Incidents with an alert that is wanted. suppressed : those too that are not to be shown."""
        named = {event.incident for event in self.events if isinstance(event, Alert) and wanted.takes(event)}
        found = [incident for incident in self.incidents if incident.uid in named]
        return [one for one in found if suppressed or not hidden(one, self.suppressions)]

    def clients(self, wanted: Filter) -> list[Client]:
        """Clients of whom an event is wanted, each with all its incidents."""
        named = {event.client for event in self.events if wanted.takes(event)}
        return clients(one for one in self.incidents if one.client in named)

    def alerts(self, wanted: Filter) -> list[Alert]:
        return [event for event in self.events if isinstance(event, Alert) and wanted.takes(event)]

    def throttles(self, wanted: Filter, *, in_force: bool = False) -> list[ThrottleEvent]:
        """in_force : only decisions in force, of all events: a successor that is not wanted still replaces one."""
        decisions = [event for event in self.events if isinstance(event, ThrottleEvent)]
        return [event for event in (holding(decisions, self.at) if in_force else decisions) if wanted.takes(event)]

    def of(self, incident: str) -> list[Event]:
        return ordered(event for event in self.events if event.incident == incident)

    def detail(self, incident: Incident) -> IncidentDetail:
        events = self.of(incident.uid)
        return IncidentDetail(
            incident,
            [event.record for event in events if isinstance(event, Alert)],
            [event.record for event in events if isinstance(event, ThrottleEvent)],
            self.labels.get(incident.uid),
        )

    def alert(self, name: str) -> Alert:
        """By the beginning of its id, or the newest of an incident or of a decision so named. Raises EventError."""
        incident = self.incident(name)
        alerts = [event for event in self.of(incident.uid) if isinstance(event, Alert)]
        if not alerts:
            raise EventError(f"{name}: its decisions stayed below an alert; `probewatch throttles` shows them")
        return next((alert for alert in alerts if alert.uid.startswith(name)), alerts[-1])

    def incident(self, name: str) -> Incident:
        """By the beginning of its id, of an alert's or a decision's. Raises EventError if that names none, or two."""
        named = {event.incident for event in self.events if _names(event, name)}
        found = [incident for incident in self.incidents if incident.uid in named]
        if len(name) < ID_DIGITS_MIN or not found:
            raise EventError(
                f"{name}: no alert, incident or decision whose id begins so, in {self.place or KAFKA}; give at least"
                f" {ID_DIGITS_MIN} digits of one that `probewatch alerts` or `throttles` lists, or --from PLACE"
            )
        if len(found) > 1:
            raise EventError(f"{name}: {len(found)} incidents begin so; give more digits")
        return found[0]


def _names(event: Event, name: str) -> bool:
    ids = (event.incident, event.uid, *([event.decision_id] if isinstance(event, Alert) else []))
    return any(one.startswith(name) for one in ids)


def open_desk(
    place: Place,
    config: Config,
    *,
    feedback: Place = None,
    labels: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> Desk:
    """Read it all. feedback : where labels stand, by default beside the events; read only if `labels`.

    Raises EventError, SourceError, KafkaError.
    """
    events = []
    for event in read_events(place, config, kinds=("alert", "throttle")):
        events.append(event)
        advance(1)
    where = beside(place) if feedback is None else feedback
    unsaid = not labels or (feedback is None and where is not None and not Path(str(where)).exists())
    said = [] if unsaid else read(where, config)
    verdicts, suppressions = labels_in(said), suppressions_in(said)
    at = now() if place in (None, KAFKA) or not events else max(event.time for event in events)
    return Desk(place, at, events, group(events, verdicts, at), verdicts, suppressions)
