"""The embedded broker: what it does wrong is worked around, and it never outlives who started it."""

import asyncio
import math
import signal
import socket
import subprocess
import sys
import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.config.kafka import Kafka
from streams.kafka import clients, embedded
from streams.kafka.broker import EMBEDDED, KAFKA, log_ends, probe
from streams.kafka.embedded import EmbeddedBroker, EmbeddedError
from tests.kafka_config import kafka_config
from tests.pipeline import HANGS_S


async def test_the_end_of_a_log_is_right_behind_a_batch_of_many_records(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(namespace, 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=50)
    await producer.start()
    await asyncio.gather(*[await producer.send(namespace, b"x", partition=0) for _ in range(100)])
    await producer.stop()
    full, empty = TopicPartition(namespace, 0), TopicPartition(namespace, 1)
    features = await probe(config.kafka)
    async with clients.reader(config) as consumer:
        assert await log_ends(consumer, [full, empty], features) == {full: 100, empty: 0}
        told = await consumer.end_offsets([full])
    assert (told[full] == 100) == features.exact_log_end, "once this fails for the embedded broker, it has been mended"


async def test_brokers_are_told_apart(embedded_broker: str) -> None:
    assert await probe(Kafka(bootstrap=embedded_broker)) is EMBEDDED
    assert "evaluation" in EMBEDDED.name


@pytest.mark.kafka
async def test_apache_kafka_is_held_back_by_nothing(apache_broker: str) -> None:
    assert await probe(Kafka(bootstrap=apache_broker)) is KAFKA


def test_it_listens_on_the_loopback_interface_only_and_stops() -> None:
    with EmbeddedBroker() as broker:
        port = int(broker.bootstrap.rpartition(":")[2])
        assert accepts(port)
        addresses = {line.split()[3] for line in listeners(port)}
        assert addresses in ({f"127.0.0.1:{port}"}, set())  # nothing if `ss` is not there
    assert not accepts(port)


def test_it_dies_with_who_started_it() -> None:
    code = "import time; from streams.kafka.embedded import EmbeddedBroker as E; e = E(); print(e.start(), flush=True);"
    code += "time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline().rpartition(":")[2])
        assert accepts(port)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANGS_S
    while accepts(port):
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.05)


def test_a_binary_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: whoever waits for it to listen would wait for ever here."""
    monkeypatch.setattr(embedded, "START_S", math.inf)
    monkeypatch.setenv("CALF_TANSU_BIN", "/bin/false")
    with pytest.raises(EmbeddedError, match="did not start"):
        EmbeddedBroker().start()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def listeners(port: int) -> list[str]:
    try:
        listed = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return []
    return listed.stdout.splitlines()
