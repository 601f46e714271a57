"""Findings to bytes: throttle records for gateways, alerts for the SOC. The only encoder of both.

Ids come from where a decision fell and what it was, times from the finding: the same rows give the same bytes.
"""

from datetime import UTC, datetime, timedelta

import msgspec

from detector.events.escape import json_bytes
from detector.events.finding import LEVELS, PERSON, Event, Finding
from detector.events.ocsf import DATA_SCHEMA, alert
from models.hashes import short_hash
from probewatch_door.record import Limits, Throttle

ALERT_LEVEL = LEVELS.index("hard")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ID_HEX_DIGITS = 32


_throttle = msgspec.json.Decoder(Throttle)


def events(finding: Finding) -> list[Event]:
    """The throttle record; from level 3 (hard) on also the alert, unless a person decided: nobody need tell people."""
    record = throttle(finding)
    client_key, time_ms = finding.client_key, finding.decision.issued_ms
    level, incident = finding.decision.level, finding.incident
    facts = (finding.model, finding.reason, level, finding.certified, incident, finding.trigger)
    value = json_bytes(record)
    made = [Event("throttle", record.decision_id, record.key.encode(), value, (), client_key, time_ms, *facts)]
    if level >= ALERT_LEVEL and finding.origin != PERSON:
        uid = _id("alert", finding)
        value = json_bytes(alert(finding, uid, record.decision_id))
        # Keyed by incident: its alerts stay in order, and together.
        head = headers(uid, record.issued_at, "judge")
        made.append(Event("alert", uid, incident.encode(), value, head, client_key, time_ms, *facts))
    return made


def as_replay(event: Event) -> bytes:
    """The value of an event for a topic of replays. Throttle records are marked: doors ignore those."""
    if event.kind != "throttle":
        return event.value
    return json_bytes(msgspec.structs.replace(_throttle.decode(event.value), replay=True))


def throttle(finding: Finding) -> Throttle:
    decision = finding.decision
    return msgspec.convert(
        {
            "decision_id": _id("throttle", finding),
            "revision": decision.revision,
            "scope": "client",
            "client": finding.client,
            "model": finding.model,
            "origin": finding.origin,
            "action": decision.action,
            "level": decision.level,
            "limits": Limits(
                decision.requests_per_minute, decision.tokens_per_minute, decision.max_concurrency, decision.delay_ms
            ),
            "mode": decision.mode,
            "reason": finding.reason,
            "evidence_nats": finding.evidence_mnats / 1000,
            "threshold_nats": finding.threshold_mnats / 1000,
            "budget": finding.budget,
            "certified": finding.certified,
            "certificate": finding.certificate,
            "issued_at": moment(decision.issued_ms),
            "effective_at": moment(decision.effective_ms),
            "expires_at": moment(decision.expires_ms),
            "finding_uid": finding.incident,
            "trigger": finding.trigger,
            "config_hash": finding.config_hash,
            "artefact_hash": finding.artefact_hash,
            "engine_version": finding.engine_version,
        },
        Throttle,
    )


def moment(ms: int) -> datetime:
    """Milliseconds since 1970, exactly (a float of seconds is not exact)."""
    return EPOCH + timedelta(milliseconds=ms)


def rfc3339(time: datetime, timespec: str = "milliseconds") -> str:
    """In UTC. timespec : as datetime.isoformat takes it."""
    return time.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def id_of(*parts: object) -> str:
    """An id of 32 hex digits. JSON keeps neighbouring parts apart: ("a", "bc") is not ("ab", "c")."""
    return short_hash(msgspec.json.encode(parts), ID_HEX_DIGITS)


def _id(kind: str, finding: Finding) -> str:
    """Names one event for ever."""
    trigger, decision = finding.trigger, finding.decision
    parts = (
        kind, finding.space, finding.client_key, trigger.source, trigger.offset, trigger.index,
        decision.level, decision.revision, decision.issued_ms,
    )  # fmt: skip
    return id_of(*parts)


def headers(uid: str, issued_at: datetime, stage: str) -> tuple[tuple[str, bytes], ...]:
    """CloudEvents 1.0, binary mode. The Kafka binding says `content-type`, many readers `ce_datacontenttype`: both."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", uid.encode()),
        ("ce_source", f"urn:probewatch:{stage}".encode()),
        ("ce_type", b"probewatch.alert.v1"),
        ("ce_time", rfc3339(issued_at).encode()),
        ("ce_dataschema", DATA_SCHEMA.encode()),
        ("ce_datacontenttype", b"application/json"),
        ("content-type", b"application/json"),
    )
