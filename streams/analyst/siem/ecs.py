"""Elastic Common Schema: a document for Elasticsearch, what ECS has no word for under `probewatch`."""

from typing import Any

from detector.events.escape import json_bytes
from streams.analyst.events import Alert
from streams.analyst.siem.parts import AttackTechnique, action, product, severity, span, techniques

VERSION = "8.17.0"
SEVERITIES = {1: 21, 2: 21, 3: 47, 4: 73, 5: 99}
"""OCSF's severities as Elastic's own rules number them."""

DENIED = frozenset(("Blocked", "Rejected"))


def render(alert: Alert) -> bytes:
    """Compact JSON."""
    return json_bytes(document(alert))


def document(alert: Alert) -> dict[str, Any]:
    begin, end = span(alert)
    made = product(alert)
    about: dict[str, Any] = {"user": {"id": alert.client}, "related": {"user": [alert.client]}} if alert.client else {}
    if alert.trigger is not None and alert.trigger.request_id:
        about["http"] = {"request": {"id": alert.trigger.request_id}}
    return {
        "@timestamp": alert.time,
        "ecs": {"version": VERSION},
        "message": alert.message,
        "tags": ["probewatch", alert.detector],
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection"],
            "type": ["denied"] if action(alert) in DENIED else ["info"],
            "id": alert.uid,
            "code": alert.detector,
            "action": action(alert).lower(),
            "module": "probewatch",
            "dataset": "probewatch.alerts",
            "provider": made["name"],
            "severity": SEVERITIES[severity(alert)],
            "sequence": alert.sequence,
            "start": begin,
            "end": end,
            "reason": alert.description,
        },
        "rule": {
            "id": f"probewatch.{alert.detector}",
            "name": alert.title,
            "category": alert.detector,
            "ruleset": alert.artefact_hash,
            "version": alert.engine_version,
        },
        "threat": _threat(techniques(alert)),
        **about,
        "service": {"name": alert.model, "type": "ai_model"},
        "observer": {
            "vendor": made["vendor_name"],
            "product": made["name"],
            "type": "ids",
            "version": alert.engine_version,
        },
        "probewatch": _own(alert),
    }


def _threat(found: list[AttackTechnique]) -> dict[str, Any]:
    """Every technique and tactic once, with sub-techniques in their own field, as in ECS."""
    tactics = _distinct([one.tactic for one in found])
    parents = _distinct([one.parent for one in found])
    subs = _distinct([one.sub for one in found if one.sub])
    technique: dict[str, Any] = _columns(parents) | ({"subtechnique": _columns(subs)} if subs else {})
    return {"framework": "MITRE ATLAS", "tactic": _columns(tactics), "technique": technique}


def _distinct(found: list[Any]) -> dict[str, str]:
    return {one["uid"]: one["name"] for one in found if one}


def _columns(named: dict[str, str]) -> dict[str, list[str]]:
    return {"id": list(named), "name": list(named.values())}


def _own(alert: Alert) -> dict[str, Any]:
    return {
        "incident": alert.incident,
        "update": alert.update,
        "level": alert.level,
        "mode": alert.mode,
        "process": alert.process,
        "client_class": alert.client_class,
        "decision_id": alert.decision_id,
        "evidence_nats": alert.evidence_nats,
        "threshold_nats": alert.threshold_nats,
        "budget": alert.budget,
        "promised": alert.promised,
        "certified": alert.certified,
        "certificate": alert.certificate,
        "requests": list(alert.requests),
        "config_hash": alert.config_hash,
    }
