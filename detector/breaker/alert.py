"""The one alert of a breaker that opens: the certificate no longer holds for a model (docs/formats/alerts.md)."""

from typing import Literal

import msgspec

from detector.detectors.atlas import API_ACCESS
from detector.events.encode import headers, id_of, moment
from detector.events.escape import json_bytes
from detector.events.finding import LEVELS, Event, Provenance
from detector.events.ocsf import CLASS_UID, OBSERVED, OCSF_VERSION, PROFILE, Json, attack
from detector.frame import BreakerFrame
from probewatch_door.record import Time

BREAKER = "breaker"
PROMISED_MIN = 1e-3
"""Below this, "n times as many as promised" would say nothing."""


class BreakerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What opened a breaker.

    rung : the level. seen : clients decided on at it, or above, within an hour. promised_clients : how many the
    certificate allows at most in a day, among so many `clients`. since, until : the first and the last of them.
    """

    schema: Literal["probewatch.breaker/1"] = "probewatch.breaker/1"
    model: str
    space: str
    rung: str
    seen: int
    promised_clients: float
    clients: int
    since: Time
    until: Time
    config_hash: str
    artefact_hash: str
    engine_version: str


def times(seen: int, promised: float) -> str:
    """How many times the promised number, for people."""
    return f"{seen / max(promised, PROMISED_MIN):,.0f} times"


def event(made_with: Provenance, frame: BreakerFrame) -> Event:
    """Its id depends on what opened, not on offsets: raw records replayed in other batches have others."""
    incident = id_of(BREAKER, frame.space, frame.artefact_hash, frame.since_ms, frame.level)
    uid = id_of("alert", incident)
    record = BreakerRecord(
        model=frame.model,
        space=frame.space,
        rung=LEVELS[frame.level],
        seen=frame.seen,
        promised_clients=frame.promised,
        clients=frame.clients,
        since=moment(frame.since_ms),
        until=moment(frame.until_ms),
        **made_with._asdict(),
    )
    value = json_bytes(_alert(frame, record, uid, incident))
    head = headers(uid, record.until, "judge")
    facts = (0, frame.until_ms, frame.model, BREAKER, 0, False, incident, None)
    return Event("alert", uid, incident.encode(), value, head, *facts)


def _alert(frame: BreakerFrame, record: BreakerRecord, uid: str, incident: str) -> Json:
    """The event as JSON values in a fixed order: about a model and no client."""
    title = f"The certificate no longer holds: model {record.model}"
    sentence = (
        f"{record.seen} of about {record.clients:,} clients were decided on at {record.rung} or above since"
        f" {record.since:%Y-%m-%d %H:%M} UTC; promised for a whole day are {record.promised_clients:.2g}"
        f" ({times(record.seen, record.promised_clients)} as many). Decisions fall back to shadow, but for those on the"
        " clients with the most evidence"
    )
    remedy = (
        "Either the clients changed (a release, a new value, another unit): recalibrate on them. Or many accounts"
        f" attack at once: `probewatch breaker reset {record.model}` enforces again"
    )
    return {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + 1,
        "type_name": "Detection Finding: Create",
        "severity_id": 4,
        "severity": "High",
        "status_id": 1,
        "status": "New",
        "time": frame.until_ms,
        "start_time": frame.since_ms,
        "end_time": frame.until_ms,
        "message": f"{title}. {sentence}.",
        "is_alert": True,
        "confidence_id": 3,
        "confidence": "High",
        "action_id": OBSERVED[0],
        "action": OBSERVED[1],
        "disposition_id": 15,
        "disposition": "Detected",
        "metadata": {
            "version": OCSF_VERSION,
            "profiles": [PROFILE],
            "product": {
                "name": "Probewatch",
                "vendor_name": "Probewatch",
                "version": record.engine_version,
                "feature": {"name": BREAKER, "version": record.engine_version},
            },
            "uid": uid,
            "correlation_uid": incident,
        },
        "finding_info": {
            "uid": incident,
            "title": title,
            "desc": f"{sentence}. {remedy}.",
            "first_seen_time": frame.since_ms,
            "last_seen_time": frame.until_ms,
            "types": [BREAKER],
            "analytic": {
                "uid": f"probewatch.{BREAKER}",
                "name": BREAKER,
                "type_id": 1,
                "type": "Rule",
                "algorithm": "clients decided on within an hour",
                "version": record.engine_version,
            },
        },
        "attacks": [attack(API_ACCESS)],
        "resources": [
            {"uid": record.space, "name": record.model, "type": "ai_model", "role_id": 1, "role": "Target"},
        ],
        "unmapped": msgspec.to_builtins(record),
    }
