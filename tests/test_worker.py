"""One worker with all stages on a broker, against an offline fold of the same records."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.config.config import Config
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.worker import liveness
from streams.worker.app import STAGES, Worker
from streams.worker.liveness import LOOK_S
from tests.history import benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, read_topic, until, write_raw


@asynccontextmanager
async def working(config: Config, fitted: Calibrated, stages: Sequence[str] = STAGES) -> AsyncIterator[Worker]:
    worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets, stages)
    asked = asyncio.Event()
    running = asyncio.create_task(worker.run(asked))
    while not worker.ready and not running.done():  # noqa: ASYNC110 readiness sets no event
        await asyncio.sleep(0.05)
    try:
        yield worker
    finally:
        asked.set()
        await running


async def test_live_events_are_the_bytes_of_the_offline_fold(broker: str, namespace: str, fitted: Calibrated) -> None:
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    async with working(config, fitted) as worker:
        await write_raw(config, [*benign(100, seed=5), *sweeps(2, 60, seed=6)])
        await until(lambda: all_handled(config), "all committed")
        async with aiohttp.ClientSession() as http:
            metrics = await (await http.get(f"{worker.health.address}/metrics")).text()
            assert (await http.get(f"{worker.health.address}/ready")).status == 200
            assert (await http.get(f"{worker.health.address}/live")).status == 200
    expected = await offline(config, fitted, config.topics.raw[0])
    written = await read_events(config)
    assert len(expected) > 4
    assert {name: values.pop() for name, values in written.values.items() if len(values) == 1} == expected
    assert written.repeated == 0
    assert await offline(config, fitted, config.topics.requests) == expected
    in_force = {record.key.decode() for record in await read_topic(config, config.topics.throttle_state)}
    assert in_force and all(key.startswith("client:k1-") and key.endswith(":loan:judge") for key in in_force)
    assert 'probewatch_rows_total{stage="judge"}' in metrics
    assert "acct-" not in metrics and "evil-" not in metrics


async def test_a_worker_that_stopped_leaves_no_consumer_open(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    before = [*_open_consumers()]
    async with working(config, fitted):
        assert len(_open_consumers()) > len(before)
        await asyncio.sleep(LOOK_S)
    assert [one for one in _open_consumers() if one not in before] == []


def _open_consumers() -> list[AIOKafkaConsumer]:
    return [one for one in gc.get_objects() if isinstance(one, AIOKafkaConsumer) and not one._closed]


async def test_nothing_planted_leaves_the_raw_topic(
    broker: str, namespace: str, fitted: Calibrated, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prompts, embeddings and client ids stand in no message of ours, no header, no log line and no metric.

    The dead-letter topic holds the refused records themselves, so there only what we add to them counts.
    """
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    secret = {"prompt": "planted-prompt", "embedding": [0.12345678, 0.87654321], "session_id": "planted-session"}
    rows = [
        row | secret | {"client_id": f"planted-{row['client_id']}", "request_id": f"r{number}"}
        for number, row in enumerate(sweeps(2, 60, seed=6))
    ]
    broken = [row | {"ts": "planted-time"} for row in rows[:20]] + [
        row | {"features": "planted", "embedding": None} for row in rows[:20]
    ]
    async with working(config, fitted) as worker:
        await write_raw(config, [*rows, *broken])
        await until(lambda: all_handled(config), "all committed")
        async with aiohttp.ClientSession() as http:
            said = await (await http.get(f"{worker.health.address}/metrics")).text()
    said += "".join(capfd.readouterr())
    names = config.topics
    for topic in (
        names.requests,
        names.judge_state,
        names.link_state,
        names.throttle,
        names.throttle_state,
        names.alerts,
    ):
        records = await read_topic(config, topic)
        assert records, topic
        said += "".join(f"{record.key!r} {record.value!r} {record.headers!r}\n" for record in records)
    letters = await read_topic(config, names.dlq)
    assert len(letters) == len(broken)
    said += "".join(repr(letter.headers) for letter in letters)
    leaks = [
        said[max(0, at - 80) : at + 80]
        for word in ("planted", "0.1234567", "0.8765432")
        if (at := said.find(word)) >= 0
    ]
    assert not leaks


async def test_a_raw_topic_that_does_not_exist_is_told_until_it_does(
    embedded_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "REPEAT_S", 1.0)
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config)
    asked = asyncio.Event()
    worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets, ["sketch"])
    with structlog.testing.capture_logs() as said:
        running = asyncio.create_task(worker.run(asked))
        missing = {"event": "topics do not exist, nothing is read from them", "topics": list(config.topics.raw)}
        await until(lambda: sum(missing.items() <= one.items() for one in said) >= 3, "said again and again")
        async with aiohttp.ClientSession() as http:
            assert (await http.get(f"{worker.health.address}/ready")).status == 503
            assert (await http.get(f"{worker.health.address}/live")).status == 200
        await topics.create(config, RAW_PARTITIONS)
        await write_raw(config, benign(20, seed=5))
        await until(lambda: worker.ready, "ready")
        await until(lambda: all_handled(config, []), "read")
    asked.set()
    await running


async def test_empty_records_are_counted_and_nothing_else(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    async with AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        for value in (None, b"", b" \r\n"):
            await producer.send_and_wait(config.topics.raw[0], value, key=b"k")
    async with working(config, fitted, ["sketch"]) as worker:
        await until(lambda: all_handled(config, []), "read")
        count = worker.metrics.registry.get_sample_value("probewatch_unjudged_total", {"reason": "empty_record"})
    assert count == 3
    assert await read_topic(config, config.topics.dlq) == []
