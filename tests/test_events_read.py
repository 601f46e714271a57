"""Events read back: every field of every kind, each once, from files and topics; junk stops nobody."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from detector.drift import records as drift_records
from detector.events.encode import events as written
from detector.events.finding import Event as Written
from streams.analyst.events import (
    Alert,
    DriftEvent,
    Event,
    EventError,
    Filter,
    ThrottleEvent,
    decode_event,
    follow,
    read_events,
)
from streams.config.config import Config
from streams.kafka import topics
from streams.metrics import Metrics
from streams.worker.sink import Sink
from tests.findings import FINDING, finding
from tests.kafka_config import kafka_config
from tests.pipeline import HANGS_S

MODEL_DRIFT = drift_records.DriftFinding(
    "loan", "loan@0123456789abcdef", "score", "adwin", 1_700_000_000_000, 1_700_003_600_000,
    0.4, 0.3, 4.2, 0.002, 3120, True, "c0ffee00c0ffee00", "facade00facade00",
)  # fmt: skip
SECOND = finding(client="k1-" + "b" * 26, client_key=7, reason="boundary", level=4, issued_ms=1_700_000_050_000)
OTHER = replace(SECOND, model="fraud", space="fraud@1", incident="b" * 32)


def history() -> list[Written]:
    return [*written(FINDING), *written(OTHER), *drift_records.events(MODEL_DRIFT)]


def write(folder: Path, found: Iterable[Written]) -> Path:
    names = {"alert": "alerts.jsonl", "throttle": "throttle.jsonl", "drift": "drift.jsonl"}
    for event in found:
        with (folder / names[event.kind]).open("ab") as file:
            file.write(event.value + b"\n")
    return folder


def test_an_alert_tells_everything_under_one_name() -> None:
    alert = decode_event(written(FINDING)[1].value)
    assert isinstance(alert, Alert)
    assert (alert.uid, alert.raw) == (written(FINDING)[1].id, written(FINDING)[1].value)
    assert alert.time == datetime(2023, 11, 14, 22, 14, 0, 123_000, UTC)
    assert (alert.client, alert.client_class, alert.model) == (FINDING.client, "consumer", "loan")
    assert (alert.detector, alert.process, alert.level, alert.mode) == ("sweep", "sweeper", 3, "enforce")
    assert (alert.incident, alert.update, alert.sequence) == (FINDING.incident, False, 2)
    assert (alert.evidence_nats, alert.threshold_nats, alert.budget) == (14.2, 11.8, 1e-4)
    assert alert.requests == ("req-42", "req-41", "req-7")
    assert alert.trigger is not None
    assert (alert.trigger.source, alert.trigger.offset, alert.trigger.request_id) == (
        "gateway-logs[3]",
        18842,
        "req-42",
    )


def test_throttle_and_drift_tell_it_too() -> None:
    throttle = decode_event(written(FINDING)[0].value)
    assert isinstance(throttle, ThrottleEvent)
    assert (throttle.client, throttle.level, throttle.detector, throttle.record.action) == (
        FINDING.client, 3, "sweep", "cap"
    )  # fmt: skip
    drift, alert = (decode_event(event.value) for event in drift_records.events(MODEL_DRIFT))
    assert isinstance(drift, DriftEvent) and isinstance(alert, Alert)
    assert (drift.client, drift.model, drift.detector, drift.record.state) == ("", "loan", "drift", "lasts")
    assert (alert.client, alert.level, alert.incident) == ("", 0, drift.incident)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 9_999, b'{"class_uid": 2004}'])
def test_what_is_no_event_says_so_and_is_not_quoted(value: bytes) -> None:
    with pytest.raises(EventError, match="no event of ours"):
        decode_event(value)


def test_each_event_comes_once_and_in_order(tmp_path: Path) -> None:
    found = list(read_events(write(tmp_path, [*reversed(history()), *history()]), Config()))
    assert sorted(event.raw for event in found) == sorted(event.value for event in history())
    assert [event.time for event in found] == sorted(event.time for event in found)


@pytest.mark.parametrize(
    ("wanted", "clients"),
    [
        (Filter(client=(FINDING.client,)), {FINDING.client}),
        (Filter(model="fraud"), {OTHER.client}),
        (Filter(detector="boundary"), {OTHER.client}),
        (Filter(level=4), {OTHER.client}),
        (Filter(level=1), {OTHER.client, FINDING.client}),
        (Filter(mode="shadow"), set()),
        (Filter(incident=FINDING.incident), {FINDING.client}),
        (Filter(since=datetime(2023, 11, 14, 22, 14, 5, tzinfo=UTC), level=1), {OTHER.client}),
        (Filter(until=datetime(2023, 11, 14, 22, 14, 5, tzinfo=UTC)), {FINDING.client}),
    ],
)
def test_a_filter_takes_what_it_says(tmp_path: Path, wanted: Filter, clients: set[str]) -> None:
    assert {event.client for event in read_events(write(tmp_path, history()), Config(), wanted)} == clients


def test_a_file_names_place_and_line_of_what_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(written(FINDING)[1].value + b"\n\nrubbish\n")
    with pytest.raises(EventError, match=r"alerts\.jsonl:3: no event of ours"):
        list(read_events(path, Config()))
    with pytest.raises(EventError, match="no such file or folder; `probewatch replay"):
        list(read_events(tmp_path / "nowhere", Config()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EventError, match=r"expected alerts\.jsonl"):
        list(read_events(tmp_path / "empty", Config(), kinds=("alert",)))


async def test_topics_give_what_was_sent_once_and_go_on(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    await topics.create(config)
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    sink = Sink(producer, config.topics, Metrics())
    await sink.send(written(FINDING))
    await sink.send(written(FINDING))
    await producer.send_and_wait(config.topics.alerts, b"rubbish")

    async def until_drift(past: bool) -> list[Event]:
        heard: list[Event] = []
        async for event in follow(config, past=past):
            heard.append(event)
            if isinstance(event, DriftEvent):
                break
        return heard

    following = asyncio.create_task(until_drift(past=False))
    while not following.done():  # it begins at the ends that it meets
        await sink.send([*written(OTHER), *drift_records.events(MODEL_DRIFT)[:1]])
        await asyncio.sleep(0.2)
    assert {event.client for event in await asyncio.wait_for(following, HANGS_S)} <= {OTHER.client, ""}
    heard = await asyncio.wait_for(until_drift(past=True), HANGS_S)
    assert len({event.uid for event in heard}) == len(heard)
    await producer.stop()
    read = await asyncio.to_thread(lambda: list(read_events(None, config)))
    assert {event.raw for event in read} == {
        event.value for event in [*written(FINDING), *written(OTHER), *drift_records.events(MODEL_DRIFT)[:1]]
    }
