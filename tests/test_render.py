"""Alerts for SIEMs: valid where a schema says what is, read back whole where a grammar does, and as documented."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from detector.drift import records as drift_records
from detector.events.encode import events as written
from detector.events.finding import Finding
from streams.analyst.events import Alert, decode_event
from streams.analyst.siem import FORMATS
from tests.findings import FINDING, FINDINGS
from tests.test_events import kinds
from tests.test_events_read import MODEL_DRIFT

ROOT = Path(__file__).parents[1]
SCHEMAS = {
    name: Draft202012Validator(json.loads((ROOT / f"docs/formats/{name}-alert.schema.json").read_text()))
    for name in ("ecs", "hec")
}
CEF_KEYS: dict[str, tuple[str, int]] = {
    "rt": (r"\d{1,15}", 15), "start": (r"\d{1,15}", 15), "end": (r"\d{1,15}", 15),
    "externalId": (r".+", 40), "cat": (r".+", 1023), "act": (r".+", 63), "suid": (r".+", 1023),
    "destinationServiceName": (r".*", 1023), "msg": (r".*", 1023), "reason": (r".*", 1023),
    **{f"cs{n}": (r".*", 4000) for n in range(1, 7)}, **{f"cs{n}Label": (r".+", 1023) for n in range(1, 7)},
    **{f"cn{n}": (r"-?\d+", 20) for n in range(1, 4)}, **{f"cn{n}Label": (r".+", 1023) for n in range(1, 4)},
    **{f"cfp{n}": (r"-?\d+\.\d+", 30) for n in range(1, 5)}, **{f"cfp{n}Label": (r".+", 1023) for n in range(1, 5)},
}  # fmt: skip
"""Keys of the format's dictionary (version 23) that we use: what they hold, and how much of it."""


def alert_of(finding: Finding) -> Alert:
    found = decode_event(next(event.value for event in written(finding) if event.kind == "alert"))
    assert isinstance(found, Alert)
    return found


def drift() -> Alert:
    found = decode_event(drift_records.events(MODEL_DRIFT)[1].value)
    assert isinstance(found, Alert)
    return found


def alerts() -> Iterator[Alert]:
    yield from map(alert_of, kinds())
    yield drift()
    yield alert_of(replace(FINDING, model='a|b\\c=d "x"', client="=|\\", space="\r\n\u202e\x1b[2J"))


@pytest.mark.parametrize("name", ["ecs", "hec"])
def test_every_kind_of_alert_is_valid(name: str) -> None:
    checked = [json.loads(FORMATS[name](alert)) for alert in alerts()]
    assert len(checked) == 722
    assert [fault.message for one in checked for fault in SCHEMAS[name].iter_errors(one)] == []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("ecs", ("event", "kind"), "alarm"),
        ("ecs", ("event", "category"), "intrusion_detection"),
        ("ecs", ("event", "severity"), "high"),
        ("ecs", ("@timestamp",), 1_700_000_000),
        ("ecs", ("client_name",), "x"),
        ("hec", ("fields", "level"), 3),
        ("hec", ("time",), "2023-11-14T22:14:00Z"),
    ],
)
def test_a_broken_one_is_found_out(name: str, path: tuple[str, ...], value: object) -> None:
    """The guard of the guard."""
    document = json.loads(FORMATS[name](alert_of(FINDING)))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert list(SCHEMAS[name].iter_errors(document))


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """By the format's grammar: bars split the header unless escaped; a key is a word right before `=`."""
    assert "\n" not in line and "\r" not in line
    header = re.match(r"((?:[^\\|]|\\.)*)\|" * 7, line)
    assert header is not None
    parts, extension = header.groups(), line[header.end() :]
    pairs = [pair.split("=", 1) for pair in re.split(r" (?=\w+=)", extension)]
    found = {key: re.sub(r"\\([\\=nr])", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), text) for key, text in pairs}
    assert len(found) == len(pairs), "no key comes twice"
    return [re.sub(r"\\([\\|])", r"\1", part) for part in parts], found


def check_cef(alert: Alert) -> None:
    header, keys = read_cef(FORMATS["cef"](alert).decode())
    assert header[:3] == ["CEF:0", "Probewatch", "Probewatch"] and 0 <= int(header[6]) <= 10
    for key, text in keys.items():
        pattern, longest = CEF_KEYS[key]
        assert re.fullmatch(pattern, text, re.DOTALL) and len(text) <= longest, (key, text)
    assert {key.removesuffix("Label") for key in keys if key.endswith("Label")} == {
        key for key in keys if re.fullmatch(r"(cs|cn|cfp)\d", key)
    }
    assert keys["externalId"] == alert.uid[:40]


def test_every_kind_of_alert_is_read_back_from_cef() -> None:
    for alert in alerts():
        check_cef(alert)
    _, keys = read_cef(FORMATS["cef"](alert_of(FINDING)).decode())
    assert (keys["suid"], keys["cs1"], keys["cn1"]) == (FINDING.client, FINDING.incident, "3")
    assert int(keys["rt"]) == FINDING.decision.issued_ms
    hostile = alert_of(replace(FINDING, model="a|b\\c=d suid=x", client="=|\\ act=Allowed"))
    header, keys = read_cef(FORMATS["cef"](hostile).decode())
    assert (keys["destinationServiceName"], keys["suid"]) == ("a|b\\c=d suid=x", "=|\\ act=Allowed"), "nothing injected"
    assert header[5] == "Field-by-field sweep: model a|b\\c=d suid=x"


@settings(max_examples=60, deadline=None)
@given(FINDINGS.filter(lambda finding: finding.decision.level >= 3 and finding.origin == "judge"))
def test_any_alert_becomes_one_line_of_each(finding: Finding) -> None:
    alert = alert_of(finding)
    for name, render in FORMATS.items():
        line = render(alert)
        assert b"\n" not in line and b"\r" not in line and b"\x1b" not in line
        assert render(alert) == line
        if name in SCHEMAS:
            json.loads(line)
    check_cef(alert)


def test_the_page_shows_what_is_written() -> None:
    """The samples in the document are those of one alert, to the letter."""
    page = (ROOT / "docs/formats/siem.md").read_text()
    samples = dict(re.findall(r"<!-- (\w+) -->\n```\w*\n(.*?)\n```", page, re.DOTALL))
    assert set(samples) == {"ecs", "hec", "cef"}
    alert = alert_of(FINDING)
    assert json.loads(samples["ecs"]) == json.loads(FORMATS["ecs"](alert))
    shown = json.loads(samples["hec"])
    whole = json.loads(FORMATS["hec"](alert))
    assert shown.pop("event") == {"class_uid": 2004, "…": "as in the topic"}
    assert whole.pop("event") == alert.record and shown == whole
    assert samples["cef"] == FORMATS["cef"](alert).decode()
