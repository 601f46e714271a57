"""SIGTERM ends the process within half a minute, whatever the broker does: then an orchestrator would kill it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.kafka import topics
from streams.kafka.embedded import EmbeddedBroker
from streams.worker.app import LEFT_S, STOP_S
from tests.history import benign
from tests.kafka_config import config_text, kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, write_raw

READY_S = 240
SLACK_S = 120


def until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "not ready"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=60).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


@pytest.fixture
def worker(
    tmp_path: Path, namespace: str, fitted: Calibrated, unused_tcp_port: int, broker: EmbeddedBroker
) -> Iterator[subprocess.Popen[str]]:
    """One that is ready, with records to read."""
    config = kafka_config(broker.bootstrap, namespace)
    asyncio.run(topics.create(config, RAW_PARTITIONS))
    file = tmp_path / "probewatch.toml"
    file.write_text(config_text(config, str(fitted.folder), unused_tcp_port))
    command = [sys.executable, "-m", "streams.cli", "run", "--config", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until_ready(process, unused_tcp_port)
        asyncio.run(write_raw(config, benign(50, seed=5)))
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def test_it_writes_leaves_and_says_nothing_of_errors(worker: subprocess.Popen[str]) -> None:
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=STOP_S + SLACK_S)
    assert worker.returncode == 0 and said.splitlines()[-1].endswith("stopped"), said
    assert "ERROR" not in said


@pytest.mark.parametrize("silent", [False, True])
def test_without_a_broker_it_ends_too(worker: subprocess.Popen[str], broker: EmbeddedBroker, silent: bool) -> None:
    """aiokafka's tasks do not always let themselves be cancelled, and wait for connections for ever."""
    assert broker._process is not None
    group = broker._process.pid
    if silent:
        os.killpg(group, signal.SIGSTOP)
    else:
        broker.stop()
    try:
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=STOP_S + 3 * LEFT_S + SLACK_S)
    finally:
        if silent:
            os.killpg(group, signal.SIGCONT)
    assert worker.returncode == 1 and "unflushed records will be reprocessed" in said
