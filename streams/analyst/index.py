"""Alerts and decisions of one place with the feedback on them: grouped, filtered, and looked up by id prefix."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from detector.events.ocsf import CLASS_UID
from probewatch_door.record import Throttle
from streams.analyst.events import KAFKA, Alert, Event, EventError, Filter, Place, ThrottleEvent, now, read_events
from streams.analyst.feedback import beside, read
from streams.analyst.incidents import Client, Incident, clients, group, holding, ordered
from streams.analyst.labels import Label, labels_in
from streams.analyst.suppress import Suppression, is_suppressed, suppressions_in
from streams.analyst.waves import marked
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


class EventIndex(NamedTuple):
    """events : in order of time. at : now; for files, the time of the last event."""

    place: Place
    at: datetime
    events: list[Event]
    incidents: list[Incident]
    labels: dict[str, Label]
    suppressions: list[Suppression]

    def alerted(self, wanted: Filter, *, suppressed: bool = False) -> list[Incident]:
        """Incidents with a matching alert. suppressed : include suppressed ones."""
        uids = {event.incident for event in self.alerts(wanted)}
        incidents = [incident for incident in self.incidents if incident.uid in uids]
        return [incident for incident in incidents if suppressed or not is_suppressed(incident, self.suppressions)]

    def clients(self, wanted: Filter) -> list[Client]:
        """Clients with a matching event, each with all its incidents."""
        names = {event.client for event in self.events if wanted.takes(event)}
        return clients(incident for incident in self.incidents if incident.client in names)

    def alerts(self, wanted: Filter) -> list[Alert]:
        return [event for event in self.events if isinstance(event, Alert) and wanted.takes(event)]

    def throttles(self, wanted: Filter, *, in_force: bool = False) -> list[ThrottleEvent]:
        """in_force : only decisions in force, of all events: a successor that does not match still replaces one."""
        decisions = [event for event in self.events if isinstance(event, ThrottleEvent)]
        return [event for event in (holding(decisions, self.at) if in_force else decisions) if wanted.takes(event)]

    def events_of(self, incident: Incident) -> list[Event]:
        return ordered(event for event in self.events if event.incident == incident.uid)

    def detail(self, incident: Incident) -> IncidentDetail:
        events = self.events_of(incident)
        return IncidentDetail(
            incident,
            [event.record for event in events if isinstance(event, Alert)],
            [event.record for event in events if isinstance(event, ThrottleEvent)],
            self.labels.get(incident.uid),
        )

    def alert(self, prefix: str) -> Alert:
        """The alert whose id starts so, else the newest one of the incident or decision. Raises EventError."""
        incident = self.incident(prefix)
        alerts = [event for event in self.events_of(incident) if isinstance(event, Alert)]
        if not alerts:
            raise EventError(f"{prefix}: its decisions stayed below an alert; `probewatch throttles` shows them")
        return next((alert for alert in alerts if alert.uid.startswith(prefix)), alerts[-1])

    def incident(self, prefix: str) -> Incident:
        """The incident with an id, alert or decision that starts so. Raises EventError if there is none, or several."""
        uids = {event.incident for event in self.events if _has_id(event, prefix)}
        incidents = [incident for incident in self.incidents if incident.uid in uids]
        if len(prefix) < ID_DIGITS_MIN or not incidents:
            raise EventError(
                f"{prefix}: no alert, incident or decision with an id that starts so in {self.place or KAFKA}; give at"
                f" least {ID_DIGITS_MIN} digits of one that `probewatch alerts` or `throttles` lists, or --from PLACE"
            )
        if len(incidents) > 1:
            raise EventError(f"{prefix}: ambiguous, {len(incidents)} incidents; give more digits")
        return incidents[0]


def _has_id(event: Event, prefix: str) -> bool:
    uids = (event.incident, event.uid, *([event.decision_id] if isinstance(event, Alert) else []))
    return any(uid.startswith(prefix) for uid in uids)


def open_index(
    place: Place,
    config: Config,
    *,
    feedback: Place = None,
    labels: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> EventIndex:
    """Read all alerts and decisions of a place.

    feedback : where labels and suppressions are, by default beside the events
    labels : whether to read them
    advance : called with the number of events read since the last call
    Raises EventError, SourceError, KafkaError.
    """
    events = []
    for event in read_events(place, config, kinds=("alert", "throttle")):
        events.append(event)
        advance(1)
    where = beside(place) if feedback is None else feedback
    absent = feedback is None and where is not None and not Path(str(where)).exists()
    records = read(where, config) if labels and not absent else []
    verdicts, suppressions = labels_in(records), suppressions_in(records)
    at = now() if place in (None, KAFKA) or not events else max(event.time for event in events)
    incidents = marked(group(events, verdicts, at), config.alerts.wave_incidents_per_hour)
    return EventIndex(place, at, events, incidents, verdicts, suppressions)
