"""ArcSight's Common Event Format, version 0: a header of seven parts, then keys of its dictionary.

Escaped is what the format gives a meaning: backslash and bar in the header; backslash, equals sign and line ends in
values. Texts are cut to the dictionary's lengths.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from detector.events.encode import EPOCH
from detector.events.escape import printable
from streams.analyst.events import Alert
from streams.analyst.siem.parts import action, product, severity, span

SEVERITIES = {1: 1, 2: 3, 3: 5, 4: 8, 5: 10}
"""OCSF's, as CEF's 0 to 10."""

LENGTHS = {
    "externalId": 40, "suid": 1023, "act": 63, "cat": 1023, "msg": 1023, "reason": 1023, "destinationServiceName": 1023,
    "cs1": 4000, "cs2": 4000, "cs3": 4000, "cs4": 4000, "cs5": 4000, "cs6": 4000,
}  # fmt: skip
LINES = re.compile(r"\r\n|\r|\n")


def render(alert: Alert) -> bytes:
    """One line, without a syslog header."""
    made = product(alert)
    number = str(SEVERITIES[severity(alert)])
    header = ["CEF:0", made["vendor_name"], made["name"], alert.engine_version, alert.detector, alert.title, number]
    extension = " ".join(f"{key}={_value(text[: LENGTHS.get(key, 1023)])}" for key, text in _extension(alert))
    return "|".join([*(map(_header, header)), extension]).encode()


def _extension(alert: Alert) -> Iterator[tuple[str, str]]:
    begin, end = span(alert)
    yield "rt", _ms(alert.time)
    yield "start", _ms(begin)
    yield "end", _ms(end)
    yield "externalId", alert.uid
    yield "cat", "AI model probing"
    yield "act", action(alert)
    if alert.client:
        yield "suid", alert.client
    yield "destinationServiceName", alert.model
    yield "msg", alert.message
    yield "reason", alert.description
    yield from _labelled("cs", ["incident", alert.incident], ["process", alert.process], ["mode", alert.mode])
    if alert.requests:
        yield from _labelled("cs", ["requests", " ".join(alert.requests)], first=4)
    yield from _labelled("cs", ["configuration", alert.config_hash], ["artefacts", alert.artefact_hash], first=5)
    yield from _labelled("cn", ["level", str(alert.level)], ["decision", str(alert.sequence)])
    if alert.budget:
        evidence, threshold = f"{alert.evidence_nats:.3f}", f"{alert.threshold_nats:.3f}"
        yield from _labelled("cfp", ["evidence (nats)", evidence], ["threshold (nats)", threshold])


def _labelled(kind: str, *named: list[str], first: int = 1) -> Iterator[tuple[str, str]]:
    for number, (label, text) in enumerate(named, first):
        if text:
            yield f"{kind}{number}Label", label
            yield f"{kind}{number}", text


def _ms(time: datetime) -> str:
    return str(round((time - EPOCH).total_seconds() * 1000))


def _header(text: str) -> str:
    return LINES.sub(" ", printable(text, "\r\n")).replace("\\", r"\\").replace("|", r"\|")


def _value(text: str) -> str:
    return LINES.sub(r"\\n", printable(text, "\r\n").replace("\\", r"\\").replace("=", r"\="))
