"""Judges come and go while traffic flows: each partition soon has an owner again. `make scaling`: 100,000 clients."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.workers import start_server
from tests.kafka_config import kafka_config
from tests.pipeline import Calibrated, offline, read_events
from tests.scaling.changes import judges
from tests.scaling.population import prepare

pytestmark = pytest.mark.kafka

CLIENTS = 20_000
PARTITIONS = 12
SESSION_S = 6.0
TAKEOVER_S = SESSION_S + 5.0


async def test_one_judge_then_three_then_two(
    apache_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    state = {"blocks": 16, "round_s": 10.0}
    plain = kafka_config(apache_broker, namespace, state=state, topics={"partitions": PARTITIONS})
    config = plain.model_copy(update={"kafka": plain.kafka.model_copy(update={"session_timeout_s": SESSION_S})})
    await prepare(config, fitted, CLIENTS)
    await asyncio.to_thread(start_server, fitted)
    async with judges(config, fitted, tmp_path) as scene:
        await scene.started()
        await scene.join(1, 2)
        await scene.kill(1)
    alone, joined, killed = scene.takeovers
    print("", *scene.takeovers, sep="\n")
    assert (alone.workers, joined.workers, killed.workers) == (1, 3, 2)
    assert min(one.clients for one in scene.takeovers) >= CLIENTS
    assert joined.kept > 0 and killed.kept == PARTITIONS * 2 // 3, "what stays is not loaded again"
    assert joined.gap_s < TAKEOVER_S and killed.gap_s < TAKEOVER_S
    expected = await offline(config, fitted, config.topics.requests, models=False)
    written = await read_events(config)
    assert {name: {value} for name, value in expected.items()} == written.values and len(expected) > 10
