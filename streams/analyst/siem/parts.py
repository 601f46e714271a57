"""What all renderings take from an alert's OCSF record."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from detector.events.encode import moment
from detector.events.ocsf import SEVERITIES
from streams.analyst.events import Alert


class AttackTechnique(NamedTuple):
    """One of ATLAS. parent : the technique that a sub-technique belongs to, else itself."""

    tactic: Mapping[str, str]
    parent: Mapping[str, str]
    sub: Mapping[str, str] | None


def techniques(alert: Alert) -> list[AttackTechnique]:
    """The likeliest first."""
    found = []
    for attack in alert.record.get("attacks", []):
        sub = attack.get("sub_technique")
        parent = attack.get("technique") or {}
        found.append(AttackTechnique(attack.get("tactic", {}), parent, sub))
    return found


def span(alert: Alert) -> tuple[datetime, datetime]:
    """Begin and end of what was seen; the decision's time where the alert names none."""
    begin, end = alert.record.get("start_time"), alert.record.get("end_time")
    return alert.time if begin is None else moment(begin), alert.time if end is None else moment(end)


def severity(alert: Alert) -> int:
    """1 (Informational) to 5 (Critical), as OCSF counts."""
    return next((number for number, name in SEVERITIES if name == alert.severity), 1)


def action(alert: Alert) -> str:
    """What gateways do: OCSF's disposition."""
    return str(alert.record.get("disposition", ""))


def product(alert: Alert) -> dict[str, Any]:
    return dict(alert.record["metadata"]["product"])
