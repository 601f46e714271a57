"""Splunk's HTTP Event Collector: the OCSF event as it is, with its time and what people search by as indexed fields."""

from detector.events.encode import EPOCH
from detector.events.escape import json_bytes
from streams.analyst.events import Alert

SOURCETYPE = "probewatch:alert"


def render(alert: Alert) -> bytes:
    """One object; a request's body may hold any number of them. fields : flat, text only, as HEC wants them."""
    fields = {
        "incident": alert.incident,
        "client": alert.client,
        "model": alert.model,
        "detector": alert.detector,
        "level": str(alert.level),
        "severity": alert.severity,
        "mode": alert.mode,
    }
    return json_bytes(
        {
            "time": (alert.time - EPOCH).total_seconds(),
            "source": "probewatch",
            "sourcetype": SOURCETYPE,
            "event": alert.record,
            "fields": {name: value for name, value in fields.items() if value},
        }
    )
