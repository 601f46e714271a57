"""Events: valid by other people's schemas, the same bytes for the same finding, ids that never meet."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from detector.detectors import REGISTRY
from detector.events.encode import events, moment
from detector.events.escape import json_bytes
from detector.events.finding import Event, Finding
from examples.alert_schema import validate_alert
from probewatch_door.record import Throttle
from streams.analyst.events import ThrottleEvent, decode_event
from tests.findings import FINDING, FINDINGS, SWEPT, finding

ROOT = Path(__file__).parents[1]
THROTTLE_SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/formats/throttle.schema.json").read_text()))
NAMES = ("variants", "boundary", "ascent", "sweep", "extraction", "membership", "offgrid", "volume", "unreadable")
ACTIONS = ("observe", "delay", "cap", "challenge", "block")


def alert_of(found: Finding) -> Event:
    return events(found)[1]


def body(event: Event) -> dict[str, Any]:
    return dict(json.loads(event.value))


def kinds() -> Iterator[Finding]:
    """Every kind of alert: detector, action, mode, level, new or not, with and without a family."""
    for name, action, mode, level, update, family in itertools.product(
        NAMES, ACTIONS, ("shadow", "enforce"), (3, 4), (False, True), (SWEPT, None)
    ):
        yield finding(reason=name, action=action, mode=mode, level=level, update=update, family=family)


def test_every_kind_of_alert_is_valid_ocsf() -> None:
    checked = list(kinds())
    faults = [validate_alert(alert_of(found).value) for found in checked]
    assert not [(found, fault) for found, fault in zip(checked, faults, strict=True) if fault]
    assert len({alert_of(found).value for found in checked}) == len(checked) == 720


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("severity_id",), 7, "$.severity_id"),
        (("time",), "yesterday", "$.time"),
        (("metadata", "product"), {}, "$.metadata.product"),
        (("resources", 1, "prompt"), "text", "$.resources[1]"),
        (("evidences", 0), {"name": "nothing"}, "$.evidences[0]"),
        (("ai_model",), {"name": "loan", "ai_provider": "us"}, "$: Additional"),
        (("type_uid",), 200403, "$.type_uid"),
        (("metadata", "profiles"), [], "$.metadata"),
    ],
)
def test_a_broken_alert_is_found_out(path: tuple[Any, ...], value: object, expected: str) -> None:
    """The guard of the guard: one fault, one message, in its place."""
    event = body(alert_of(FINDING))
    assert validate_alert(json.dumps(event).encode()) == []
    place: Any = event
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    faults = validate_alert(json.dumps(event).encode())
    assert faults
    assert faults[0].startswith(expected), faults


def test_what_is_not_json_is_a_fault_not_an_exception() -> None:
    for value in (b"", b"{", b"\xff\xfe", b"[]", b"null"):
        assert validate_alert(value), value


def test_a_missing_required_attribute_is_found_out() -> None:
    whole = body(alert_of(FINDING))
    for name in (
        "activity_id",
        "category_uid",
        "class_uid",
        "type_uid",
        "severity_id",
        "time",
        "metadata",
        "finding_info",
    ):
        assert validate_alert(json.dumps({k: v for k, v in whole.items() if k != name}).encode()), name


@settings(max_examples=40, deadline=None)
@given(FINDINGS)
def test_any_finding_makes_valid_events(found: Finding) -> None:
    made = events(found)
    assert [event.kind for event in made] == (["throttle", "alert"] if found.decision.level >= 3 else ["throttle"])
    assert not list(THROTTLE_SCHEMA.iter_errors(json.loads(made[0].value)))
    for event in made[1:]:
        assert validate_alert(event.value) == []
    assert events(found) == made


@settings(max_examples=100, deadline=None)
@given(FINDINGS)
def test_a_throttle_record_reads_back_as_written(found: Finding) -> None:
    event = events(found)[0]
    record = msgspec.json.decode(event.value, type=Throttle)
    assert json_bytes(record) == event.value
    assert record.key.encode() == event.key
    assert int(record.issued_at.timestamp() * 1000 + 0.5) == found.decision.issued_ms
    assert (record.client, record.trigger.offset) == (found.client, found.trigger.offset)


@pytest.mark.parametrize("name", ["decision_id", "expires_at", "limits", "trigger", "mode"])
def test_the_throttle_schema_misses_nothing_that_is_required(name: str) -> None:
    record = body(events(FINDING)[0])
    assert not list(THROTTLE_SCHEMA.iter_errors(record))
    del record[name]
    assert list(THROTTLE_SCHEMA.iter_errors(record))


def test_the_throttle_schema_names_the_fields_of_the_struct() -> None:
    assert THROTTLE_SCHEMA.schema["required"] == list(Throttle.__struct_fields__)


def test_bytes_are_pinned() -> None:
    """A change here changes what gateways and the SOC read: say so in the CHANGELOG."""
    record = events(FINDING)[0]
    assert record.key == b"client:k1-abcdefghijklmnopqrstuvwxyz:loan:judge"
    assert record.value.startswith(
        b'{"schema":"probewatch.throttle/1","decision_id":"' + record.id.encode() + b'","revision":2,"scope":"client",'
        b'"client":"k1-abcdefghijklmnopqrstuvwxyz","model":"loan","origin":"judge","action":"cap","level":3,'
        b'"limits":{"requests_per_minute":1,"tokens_per_minute":null,"max_concurrency":null,"delay_ms":null},'
        b'"mode":"enforce","reason":"sweep","evidence_nats":14.2,"threshold_nats":11.8,"budget":0.0001,'
        b'"certified":false,"certificate":"ce27000000000000","issued_at":"2023-11-14T22:14:00.123000Z"'
    )
    assert b'"replay":false}' in record.value


POSITIONS = (
    {"source": "gateway-logs[4]"}, {"offset": 18843}, {"index": 1}, {"level": 4}, {"revision": 3},
    {"client_key": 1}, {"space": "loan@fedcba9876543210"}, {"issued_ms": FINDING.decision.issued_ms + 1},
)  # fmt: skip


def test_ids_differ_wherever_position_or_content_differ() -> None:
    found = [FINDING, *(finding(**change) for change in POSITIONS)]
    ids = [event.id for each in found for event in events(each)]
    assert len(set(ids)) == len(ids) == 2 * (1 + len(POSITIONS))


@settings(max_examples=200, deadline=None)
@given(FINDINGS, FINDINGS)
def test_other_positions_other_ids(one: Finding, other: Finding) -> None:
    here, there = one.trigger, other.trigger
    if (here.source, here.offset, here.index) != (there.source, there.offset, there.index):
        assert not {event.id for event in events(one)} & {event.id for event in events(replace(one, trigger=there))}
    assert len({event.id for event in events(one)}) == len(events(one))


@settings(max_examples=200, deadline=None)
@given(FINDINGS)
def test_an_event_carries_the_facts_that_its_value_says(one: Finding) -> None:
    for event in events(one):
        read = decode_event(event.value)
        assert (event.id, event.model, event.detector, event.level) == (read.uid, read.model, read.detector, read.level)
        assert (event.incident, moment(event.time_ms)) == (read.incident, read.time)
        said = read.record if isinstance(read, ThrottleEvent) else read
        assert (event.position, event.certified) == (said.trigger, said.certified)


def test_an_alert_says_who_what_and_why() -> None:
    event = body(alert_of(finding(certified=True)))
    client, model = event["resources"]
    assert (client["role_id"], client["uid"]) == (2, FINDING.client)
    assert (model["role_id"], model["name"], model["type"]) == (1, "loan", "ai_model")
    assert event["metadata"]["correlation_uid"] == event["finding_info"]["uid"] == FINDING.incident
    assert event["metadata"]["uid"] == alert_of(FINDING).id
    assert event["finding_info"]["analytic"]["type_id"] == 3
    assert event["unmapped"]["decision_id"] == events(FINDING)[0].id
    assert event["unmapped"]["config_hash"] == FINDING.config_hash
    assert "at most 1 in 10,000 ordinary clients is alarmed in a day" in event["finding_info"]["desc"].lower()
    assert event["anomaly_analyses"][0]["anomalies"][0]["observations"][0]["value"] == "6.200"
    assert event["anomaly_analyses"][0]["baselines"][0]["observations"][0]["value"] == "5.900"
    assert [e["uid"] for e in event["evidences"][:3]] == ["req-42", "req-41", "req-7"]
    assert event["evidences"][3]["data"]["evidence_by_feature"] == {"edit": 9.1, "field": 3.0, "flip": -0.4}


def test_activity_and_status_follow_the_incident() -> None:
    new, more = body(alert_of(FINDING)), body(alert_of(finding(update=True)))
    assert (new["activity_id"], new["type_uid"], new["status_id"]) == (1, 200401, 1)
    assert (more["activity_id"], more["type_uid"]) == (2, 200402)
    assert "status_id" not in more, "an update must not reset what an analyst has set"


@pytest.mark.parametrize(
    ("mode", "action", "expected"),
    [
        ("shadow", "block", (3, 15)), ("enforce", "observe", (3, 15)), ("enforce", "delay", (4, 14)),
        ("enforce", "cap", (2, 25)), ("enforce", "challenge", (4, 23)), ("enforce", "block", (2, 2)),
    ],
)  # fmt: skip
def test_disposition_says_what_gateways_do(mode: str, action: str, expected: tuple[int, int]) -> None:
    event = body(alert_of(finding(mode=mode, action=action)))
    assert (event["action_id"], event["disposition_id"]) == expected


def test_severity_rises_with_the_level() -> None:
    assert [body(alert_of(finding(level=level)))["severity_id"] for level in (3, 4)] == [4, 5]


def test_every_detector_has_its_atlas_techniques() -> None:
    assert {detector.name for detector in REGISTRY if detector.techniques} == set(NAMES)
    for name in NAMES:
        attacks = body(alert_of(finding(reason=name)))["attacks"]
        assert len(attacks) >= 2
        assert all(attack["version"] == "5.6.0" for attack in attacks)


def test_headers_are_cloudevents_in_binary_mode() -> None:
    event = alert_of(FINDING)
    headers = dict(event.headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"].decode() == event.id
    assert headers["ce_time"] == b"2023-11-14T22:14:00.123Z"
    assert headers["ce_source"] and headers["ce_type"] == b"probewatch.alert.v1"
    assert headers["ce_datacontenttype"] == headers["content-type"] == b"application/json"
    assert events(FINDING)[0].headers == ()
