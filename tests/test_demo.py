"""The parts of the demonstration that decide whether it succeeded. The whole of it is `make run`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from examples.attackers import Prober
from examples.demo import report
from examples.demo.processes import ChildError, Children
from examples.demo.tape import Record, Tape
from examples.traffic import Client
from streams.config.config import Config
from streams.history.base import RawBatch
from streams.history.sources import open_sources
from streams.kafka import topics

NAMES = {"acct-1": "k1-a", "acct-2": "k1-b", "acct-8": "k1-x", "acct-9": "k1-y"}


def decision(client: str, row: int, action: str = "cap", mode: str = "enforce") -> dict[str, Any]:
    trigger = {"source": "gateway-logs[0]", "offset": row, "rows_seen": row}
    return {"client": client, "action": action, "mode": mode, "trigger": trigger}


def crowd() -> tuple[list[Client], list[Prober]]:
    clients = [
        Client("acct-1", "consumer", [], statuses=[200]),
        Client("acct-2", "re-quoter", [], statuses=[200, 200]),
    ]
    probers = [Prober("", "acct-8", "walk", 7, 7, 3), Prober("", "acct-9", "sweep", 9, 8, 4)]
    return clients, probers


def summed(throttles: list[dict[str, Any]], *, alerts: int = 2, valid: int = 2) -> dict[str, Any]:
    clients, probers = crowd()
    rows_of = report.first_rows(throttles)
    return report.summary(clients, probers, rows_of, NAMES, alerts, valid, [10, 20, 30], records=20, rejects=0)


BOTH = [decision("k1-x", 9), decision("k1-x", 5), decision("k1-y", 6)]


def test_summary_has_the_fields_that_others_read() -> None:
    assert summed(BOTH) == {
        "benign_clients": 2,
        "benign_throttled": 0,
        "attackers": [
            {"kind": "walk", "rows_to_throttle": 5, "served_before_refusal": 7, "refused": 3},
            {"kind": "sweep", "rows_to_throttle": 6, "served_before_refusal": 8, "refused": 4},
        ],
        "alerts": 2,
        "alerts_valid": 2,
        "latency_ms": {"p50": 20.0, "p99": 29.8},
        "records": 20,
        "rejects": 0,
    }
    assert report.failures(summed(BOTH)) == []


@pytest.mark.parametrize(
    ("throttles", "alerts", "valid", "words"),
    [
        (BOTH[:2], 2, 2, "sweep was not throttled"),
        ([*BOTH[:2], decision("k1-y", 6, "observe")], 2, 2, "sweep was not throttled"),
        ([*BOTH[:2], decision("k1-y", 6, mode="shadow")], 2, 2, "sweep was not throttled"),
        ([*BOTH, decision("k1-b", 2)], 2, 2, "1 benign clients were throttled"),
        (BOTH, 2, 1, "1 of 2 alerts are valid"),
        (BOTH, 0, 0, "0 of 0 alerts are valid"),
    ],
)
def test_a_run_fails_for_each_reason(throttles: list[dict[str, Any]], alerts: int, valid: int, words: str) -> None:
    assert report.failures(summed(throttles, alerts=alerts, valid=valid)) == [words]


def test_a_refused_benign_client_is_a_throttled_one() -> None:
    clients, probers = crowd()
    clients[0].statuses.append(429)
    found = report.summary(clients, probers, report.first_rows(BOTH), NAMES, 2, 2, [1], 20, 0)
    assert found["benign_throttled"] == 1


def test_the_table_tells_watched_from_throttled() -> None:
    throttles = [*BOTH, decision("k1-b", 2, "observe")]
    lines = {line.kind: line for line in report.table(*crowd(), throttles, NAMES)}
    assert (lines["re-quoter"].watched, lines["re-quoter"].rows) == (1, ())
    assert (lines["walk"].watched, lines["walk"].rows, lines["walk"].requests) == (1, (5,), 10)
    assert lines["consumer"].cells() == ("consumer", "1", "1", "0", "0", "-", "0")


def test_latency_is_counted_from_the_deciding_record() -> None:
    raw = [Record("gateway-logs", 0, offset, 1_000 + offset, b"") for offset in range(10)]
    written = [Record("throttle", 0, i, 1_100, b"") for i in range(len(BOTH))]
    assert report.latencies_ms(raw, written, BOTH) == [91, 95, 94]


async def test_a_taped_log_keeps_every_position(embedded_broker: str, namespace: str, tmp_path: Path) -> None:
    topic = f"{namespace}-logs"
    config = Config(kafka={"bootstrap": embedded_broker}, topics={"raw": (topic,)})
    await topics.create(config, raw_partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=embedded_broker) as producer:
        for i in range(6):
            await producer.send_and_wait(topic, b'{"ts":%d}' % i, partition=i % 2)
    async with Tape(embedded_broker, [topic], 2) as tape:
        await tape.until(topic, 6)
        tape.write(topic, tmp_path / "log.jsonl", place=True)
    [source] = open_sources([str(tmp_path / "log.jsonl")], config)
    found = {}
    for batch in source.batches():
        assert isinstance(batch, RawBatch)
        for record in batch.records:
            found[batch.topic, batch.partition, record.offset] = json.loads(record.value or b"")["ts"]
    assert found == {(topic, i % 2, i // 2): i for i in range(6)}


async def test_children_are_watched_and_ended(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        children.start("sleeper", "asyncio")  # a Python prompt; without input it ends at once
        async with asyncio.timeout(120):
            with pytest.raises(ChildError, match="sleeper ended"):
                while True:
                    children.check()
                    await asyncio.sleep(0.05)
        with pytest.raises(ChildError, match="No module named nonesuch"):
            await children.run("nobody", "nonesuch")
    with Children(tmp_path) as children:
        children.start("server", "http.server", "0", "--bind", "127.0.0.1")
        process = children._running[0][1]
        assert process.poll() is None
    assert process.returncode is not None
