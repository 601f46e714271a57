"""A finding as an OCSF 1.8.0 Detection Finding (class 2004, profile security_control): docs/formats/alerts.md."""

from detector.detectors import REGISTRY
from detector.detectors.atlas import API_ACCESS, EROSION, Technique
from detector.detectors.atlas import VERSION as ATLAS_VERSION
from detector.events.finding import LEVELS, Family, Finding
from detector.events.wording import Explanation, earlier_requests, explain

Json = dict[str, object]

OCSF_VERSION = "1.8.0"
PROFILE = "security_control"
CLASS_UID = 2004
DATA_SCHEMA = f"https://schema.ocsf.io/{OCSF_VERSION}/classes/detection_finding?profiles={PROFILE}"

SEVERITIES = ((1, "Informational"), (2, "Low"), (3, "Medium"), (4, "High"), (5, "Critical"))
"""By level."""

OBSERVED, DETECTED = (3, "Observed"), (15, "Detected")
RESPONSES = {
    "observe": (OBSERVED, DETECTED),
    "delay": ((4, "Modified"), (14, "Delayed")),
    "cap": ((2, "Denied"), (25, "Rejected")),
    "challenge": ((4, "Modified"), (23, "Challenge")),
    "block": ((2, "Denied"), (2, "Blocked")),
    "lift": ((1, "Allowed"), (1, "Allowed")),
}
"""Action -> OCSF (action, disposition) when gateways act on it; in shadow everything is merely observed."""


def techniques(detector: str) -> tuple[Technique, ...]:
    """What ATLAS calls an alert of a detector, or of the drift of models; all of them need access to the interface."""
    if detector == "drift":
        return (EROSION, API_ACCESS)
    own = (technique for one in REGISTRY if one.name == detector for technique in one.techniques)
    return (*own, API_ACCESS)


def alert(finding: Finding, uid: str, decision_id: str) -> Json:
    """The event as JSON values in a fixed order. uid : of this event; decision_id : of its throttle record."""
    words, decision = explain(finding), finding.decision
    activity_id, activity = (2, "Update") if finding.update else (1, "Create")
    severity_id, severity = SEVERITIES[decision.level]
    action, disposition = RESPONSES[decision.action] if decision.mode == "enforce" else (OBSERVED, DETECTED)
    confidence_id, confidence = (3, "High") if finding.certified else (2, "Medium")
    # A new finding is new. An update is silent about its status, which by then is the analysts' to set.
    status: Json = {} if finding.update else {"status_id": 1, "status": "New"}
    return {
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + activity_id,
        "type_name": f"Detection Finding: {activity}",
        "severity_id": severity_id,
        "severity": severity,
        **status,
        "time": decision.issued_ms,
        **_period(finding.family),
        "message": f"{words.title}. {words.seen}",
        "is_alert": True,
        "confidence_id": confidence_id,
        "confidence": confidence,
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "metadata": _metadata(finding, uid),
        "finding_info": _finding_info(finding, words),
        "attacks": [attack(technique) for technique in techniques(finding.reason)],
        "policy": _policy(finding),
        "resources": _resources(finding),
        "observables": [
            {"name": "resources[0].uid", "type_id": 10, "type": "Resource UID", "value": finding.client},
            {"name": "evidences[0].uid", "type_id": 99, "type": "Request ID", "value": finding.trigger.request_id},
        ],
        "anomaly_analyses": [_anomaly_analysis(finding, words)],
        "evidences": _evidences(finding),
        "unmapped": _unmapped(finding, decision_id),
    }


def _period(family: Family | None) -> Json:
    return {} if family is None else {"start_time": family.first_ms, "end_time": family.last_ms}


def _metadata(finding: Finding, uid: str) -> Json:
    return {
        "version": OCSF_VERSION,
        "profiles": [PROFILE],
        "product": {
            "name": "Probewatch",
            "vendor_name": "Probewatch",
            "version": finding.engine_version,
            "feature": {"name": finding.reason, "version": finding.engine_version},
        },
        "uid": uid,
        "correlation_uid": finding.incident,
        "sequence": finding.decision.revision,
        "log_name": finding.trigger.source,
    }


def _finding_info(finding: Finding, words: Explanation) -> Json:
    family = finding.family
    seen: Json = {} if family is None else {"first_seen_time": family.first_ms, "last_seen_time": family.last_ms}
    return {
        "uid": finding.incident,
        "title": words.title,
        "desc": words.text(),
        **seen,
        "modified_time": finding.decision.issued_ms,
        "types": [finding.reason],
        "data_sources": [finding.trigger.source],
        "analytic": {
            "uid": f"probewatch.{finding.reason}",
            "name": finding.reason,
            "type_id": 3,
            "type": "Statistical",
            "algorithm": finding.process,
            "version": finding.engine_version,
        },
    }


def attack(technique: Technique) -> Json:
    named: Json = {"uid": technique.id, "name": technique.name}
    if technique.parent is not None:
        uid, name = technique.parent
        body: Json = {"technique": {"uid": uid, "name": name}, "sub_technique": named}
    else:
        body = {"technique": named}
    uid, name = technique.tactic
    return {"version": ATLAS_VERSION, "tactic": {"uid": uid, "name": name}, **body}


def _policy(finding: Finding) -> Json:
    return {
        "uid": finding.config_hash,
        "name": LEVELS[finding.decision.level],
        "type": "throttle",
        "is_applied": finding.decision.mode == "enforce",
    }


def _resources(finding: Finding) -> list[Json]:
    """The client acts, the model is the target. (OCSF has an ai_model object, but not in this class.)"""
    return [
        {
            "uid": finding.client,
            "type": "client",
            "role_id": 2,
            "role": "Actor",
            "labels": [f"class:{finding.client_class}"],
        },
        {"uid": finding.space, "name": finding.model, "type": "ai_model", "role_id": 1, "role": "Target"},
    ]


def _anomaly_analysis(finding: Finding, words: Explanation) -> Json:
    """The statistic that was compared, the threshold it was compared with, and what that threshold promises."""
    compared = {"observation_parameter": "score over all evidence", "observation_type": "Sequence Analysis"}
    value, threshold = f"{finding.excess_milli / 1000:.3f}", f"{finding.threshold_milli / 1000:.3f}"
    return {
        "analysis_targets": [
            {"name": finding.client, "type": "client"},
            {"name": finding.space, "type": "space"},
        ],
        "anomalies": [
            {
                **compared,
                "observed_pattern": words.evidence,
                "observations": [{"value": value, "count": finding.trigger.rows_seen}],
            }
        ],
        "baselines": [{**compared, "observed_pattern": words.budget, "observations": [{"value": threshold}]}],
    }


def _evidences(finding: Finding) -> list[Json]:
    trigger = finding.trigger
    place: Json = {
        "source": trigger.source,
        "offset": trigger.offset,
        "index": trigger.index,
        "rows_seen": trigger.rows_seen,
    }
    decided = _request(finding, "request at which the decision fell", trigger.request_id, place)
    earlier = [_request(finding, "nearest earlier request", request_id) for request_id in earlier_requests(finding)]
    by_feature = {name: milli / 1000 for name, milli in finding.contributions}
    figures: Json = {"evidence_by_feature": by_feature, **_figures(finding)}
    return [decided, *earlier, {"name": "grounds", "data": figures}]


def _request(finding: Finding, name: str, request_id: str, place: Json | None = None) -> Json:
    body: Json = {
        "name": name,
        "uid": request_id,
        "actor": {"user": {"uid": finding.client}},
        "api": {"operation": "inference", "request": {"uid": request_id}, "service": {"name": finding.model}},
    }
    return body if place is None else {**body, "data": place}


def _figures(finding: Finding) -> Json:
    counts, family = finding.counts, finding.family
    figures: Json = {
        "rows": counts.rows,
        "distinct": counts.distinct,
        "repeats": counts.repeats,
        "variants": counts.variants,
        "offgrid_rows": counts.offgrid_rows,
        "offgrid_fields": list(counts.offgrid_fields),
        "low_margin_rows": counts.low_margin_rows,
        "member_rows": counts.member_rows,
        "explained_rows": counts.explained_rows,
        "unreadable_rows": counts.unreadable_rows,
        "unjudged_rows": counts.unjudged_rows,
        "cells": counts.cells,
    }
    if family is None:
        return figures
    fields = [{"name": f.name, "changed_rows": f.changed_rows, "values": f.distinct_values} for f in family.fields]
    labels = [{"label": label, "rows": rows} for label, rows in family.labels]
    return {
        **figures,
        "family": {"variants": family.variants, "flips": family.flips, "fields": fields, "labels": labels},
    }


def _unmapped(finding: Finding, decision_id: str) -> Json:
    """What OCSF has no word for: enough to reproduce the decision, and to find its throttle record."""
    return {
        "decision_id": decision_id,
        "revision": finding.decision.revision,
        "level": finding.decision.level,
        "mode": finding.decision.mode,
        "process": finding.process,
        "evidence_nats": finding.evidence_mnats / 1000,
        "threshold_nats": finding.threshold_mnats / 1000,
        "budget": finding.budget,
        "certified": finding.certified,
        "certificate": finding.certificate,
        "promised": finding.promised,
        "config_hash": finding.config_hash,
        "artefact_hash": finding.artefact_hash,
        "engine_version": finding.engine_version,
    }
