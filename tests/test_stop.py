"""SIGTERM ends the process within half a minute, whatever the broker does: then an orchestrator would kill it."""

import asyncio
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.config import Config
from streams import topics
from streams.app import LEFT_S, STOP_S
from streams.embedded import EmbeddedBroker
from tests.history import benign
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, write_raw

READY_S = 90
SLACK_S = 10

pytestmark = pytest.mark.timeout(180)


def write_config(file: Path, config: Config, fitted: Calibrated, port: int) -> None:
    own = ("requests", "judge_state", "link_state", "drift", "alerts", "throttle", "throttle_state", "dlq")
    names = "\n".join(f'{name} = "{getattr(config.topics, name)}"' for name in own)
    file.write_text(
        f'artefacts = "{fitted.folder}"\n'
        f'[kafka]\nbootstrap = "{config.kafka.bootstrap}"\ngroup = "{config.kafka.group}"\n'
        f'[web]\nport = {port}\n[secrets]\ndirectory = "{fitted.folder}/secrets"\n'
        f'[topics]\nraw = ["{config.topics.raw[0]}"]\npartitions = {config.topics.partitions}\n{names}\n'
    )


def until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "not ready"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
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
    write_config(tmp_path / "probewatch.toml", config, fitted, unused_tcp_port)
    command = [sys.executable, "-m", "streams.cli", "run", "--config", str(tmp_path / "probewatch.toml")]
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
    _, said = worker.communicate(timeout=STOP_S)
    assert worker.returncode == 0 and said.splitlines()[-1].endswith("stopped"), said
    assert "ERROR" not in said


def test_without_a_broker_it_ends_too(worker: subprocess.Popen[str], broker: EmbeddedBroker) -> None:
    """aiokafka's tasks do not always let themselves be cancelled, and wait for connections for ever."""
    broker.stop()
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=STOP_S + 2 * LEFT_S + SLACK_S)
    assert worker.returncode == 1 and "what is not written will be done again" in said
