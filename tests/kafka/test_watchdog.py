"""Apache Kafka away, asleep, restarted, full of nothing: a worker waits and says so, or ends and says why."""

import asyncio
import itertools
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError

from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import probe
from streams.kafka.clients import SendError
from streams.worker import liveness, state_topic
from streams.worker.app import Worker
from streams.worker.stage import StageError
from tests.history import benign, sweeps
from tests.kafka_broker import Cluster, kafka_cluster
from tests.kafka_config import kafka_config
from tests.pipeline import (
    HANGS_S,
    RAW_PARTITIONS,
    Calibrated,
    all_handled,
    ends,
    offline,
    read_events,
    read_topic,
    until,
    write_raw,
)
from tests.test_stages import ROWS, anew, batches, judging, requests, sketched

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A broker that may be ill-treated."""
    with kafka_cluster() as cluster:
        yield cluster


@asynccontextmanager
async def working(config: Config, fitted: Calibrated, *stages: str) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
    worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets, stages or ("sketch", "judge"))
    asked = asyncio.Event()
    running = asyncio.create_task(worker.run(asked))
    try:
        yield worker, running
    finally:
        asked.set()
        with suppress(Exception):
            await running


async def ready(worker: Worker) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{worker.health.address}/ready") as answer:
        return answer.status == 200


async def alter(config: Config, topic: str, **settings: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    named = {name.replace("_", "."): value for name, value in settings.items()}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])
    await admin.close()
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("how", ["asleep", "killed"])
async def test_while_kafka_is_away_a_worker_waits_and_says_so(
    own: Cluster,
    namespace: str,
    fitted: Calibrated,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(liveness, "ANSWER_S", 2.0)
    monkeypatch.setattr(liveness, "REPEAT_S", 4.0)
    config = kafka_config(own.bootstrap, namespace)
    (node,) = own.nodes
    await topics.create(config, RAW_PARTITIONS)
    rows = [*benign(60, seed=5), *sweeps(2, 60, seed=6)]
    said = ""

    def said_thrice() -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return said.count("Kafka is unavailable") >= 3

    async with working(config, fitted) as (worker, running):
        await until(lambda: asyncio.sleep(0, worker.ready), "ready")
        await write_raw(config, rows[: len(rows) // 2])
        await until(lambda: all_handled(config, ["judge"]), "half handled")
        node.send(signal.SIGSTOP) if how == "asleep" else node.kill()
        await until(lambda: asyncio.sleep(0, worker.liveness.unavailable_s > 0), "noticed")
        assert not await ready(worker)
        await asyncio.sleep(10)  # longer than sessions live
        await until(said_thrice, "said again and again")
        assert not running.done()
        if how == "asleep":
            node.send(signal.SIGCONT)
        else:
            node.start()
            await asyncio.to_thread(node.await_accepting)
        await until(lambda: ready(worker), "ready again")
        await write_raw(config, rows[len(rows) // 2 :])
        await until(lambda: all_handled(config, ["judge"]), "all handled")
        assert not running.done()
    said += "".join(capfd.readouterr())
    assert len(re.findall(r"Kafka is available again\s.*after_s=", said)) >= 1
    expected = await offline(config, fitted, config.topics.raw[0])
    assert len(expected) > 4
    assert (await read_events(config)).values == {name: {value} for name, value in expected.items()}


async def test_a_worker_that_comes_first_waits_for_kafka(own: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    (node,) = own.nodes
    kafka = Config.model_validate({"kafka": {"bootstrap": own.bootstrap}}).kafka
    node.kill()
    arriving = asyncio.create_task(liveness.wait_for_kafka(kafka))
    await asyncio.sleep(3)
    assert not arriving.done()
    node.start()
    await asyncio.wait_for(arriving, HANGS_S)
    said = capfd.readouterr()
    assert "Kafka is unavailable" in said.out + said.err and "Kafka is available again" in said.out + said.err


@pytest.mark.parametrize(
    ("topic", "most"), [("alerts", 200), ("throttle_state", 200), ("judge_state", 60), ("requests", 200)]
)
async def test_what_is_refused_ends_the_worker_before_anything_behind_it_and_goes_on_when_mended(
    own: Cluster, namespace: str, fitted: Calibrated, topic: str, most: int
) -> None:
    config = kafka_config(own.bootstrap, namespace)
    await topics.create(config, RAW_PARTITIONS)
    name = getattr(config.topics, topic)
    await alter(config, name, max_message_bytes=str(most))
    await write_raw(config, ROWS)
    async with working(config, fitted) as (_, running):
        with pytest.raises((SendError, ExceptionGroup)) as caught:
            await asyncio.wait_for(asyncio.shield(running), HANGS_S)
    told = caught.value if isinstance(caught.value, SendError) else caught.value.exceptions[0]
    assert re.match(
        rf"{re.escape(name)}: a message of \d+ bytes was not taken: MessageSizeTooLarge.*max.message.bytes", str(told)
    )
    await alter(config, name, max_message_bytes="1048588")
    async with working(config, fitted) as (_, running):
        await until(lambda: all_handled(config, ["judge"]), f"all handled: {running}")
    expected = await offline(config, fitted, config.topics.raw[0])
    assert len(expected) > 4
    assert (await read_events(config)).values == {name: {value} for name, value in expected.items()}


async def test_a_message_without_acknowledgement_is_not_waited_for_for_ever(
    own: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idempotent producer tries again without end."""
    monkeypatch.setattr(clients, "DELIVERY_S", 3.0)
    config = kafka_config(own.bootstrap, namespace)
    await topics.create(config)
    producer = clients.producer(config, await probe(config.kafka), 1_000)
    await producer.start()
    await producer.send_and_wait(config.topics.alerts, b"before")
    own.nodes[0].freeze()
    try:
        with pytest.raises(SendError, match=r"alerts: a message of 5 bytes .* no acknowledgement for 3 s: too few"):
            await producer.send_and_wait(config.topics.alerts, b"while")
        await asyncio.wait_for(producer.stop(), HANGS_S)
    finally:
        own.nodes[0].send(signal.SIGCONT)


async def test_a_state_topic_emptied_from_under_its_end_is_read_to_the_end(
    own: Cluster, namespace: str, fitted: Calibrated
) -> None:
    """Its partitions begin where they end: Faust's recovery waits there for a record that cannot come."""
    config = kafka_config(own.bootstrap, namespace)
    await sketched(config, fitted, ROWS, pieces=3)
    owned, whole = requests(config), batches(await read_topic(config, config.topics.requests))
    async with judging(config, fitted) as judge:
        await judge.acquire(owned, anew(owned))
        for batch in whole:
            await judge.process(batch)
        await judge.release()
        await alter(config, config.topics.judge_state, cleanup_policy="delete")
        admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
        await admin.start()
        place = [TopicPartition(config.topics.judge_state, tp.partition) for tp in owned]
        await admin.delete_records({tp: RecordsToDelete(-1) for tp in place}, 10_000)
        await admin.close()
        assert min((await ends(config, config.topics.judge_state, len(owned))).values()) > 0
    async with judging(config, fitted) as other:  # one that remembers nothing
        await other.acquire(owned, anew(owned))  # fails where it waits for records that are gone
        assert other._partitions[owned[0]].state.clients == 0


async def test_a_recovery_that_gets_nothing_ends_and_says_so(
    own: Cluster, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_topic, "SILENT_S", 2.0)
    config = kafka_config(own.bootstrap, namespace)
    await sketched(config, fitted, ROWS[:200])
    owned = requests(config)
    async with judging(config, fitted) as judge:
        await judge.acquire(owned, anew(owned))
        for batch in batches(await read_topic(config, config.topics.requests)):
            await judge.process(batch)
        await judge.release()
        places = [TopicPartition(config.topics.judge_state, tp.partition) for tp in owned]
        async with clients.reader(config) as consumer:
            assign = consumer.assign

            def asleep(what: list[TopicPartition]) -> None:
                assign(what)
                consumer.pause(*what)

            monkeypatch.setattr(consumer, "assign", asleep)
            with pytest.raises(StageError, match="before the end of the log: recovery is stuck"):
                async for _ in state_topic.read_log(consumer, places, await probe(config.kafka)):
                    pass


DOWN_S = 60
"""Longer than any timeout of the client libraries: 40 s for a request, 45 s for a session."""


async def loaded(config: Config, enough: asyncio.Event) -> None:
    """Writes as fast as it may until told, or until the broker is gone."""
    with suppress(KafkaError):
        for number in itertools.count():
            await write_raw(config, benign(2_000, seed=number, day=number), pause_s=0.01)
            if enough.is_set():
                return


@pytest.mark.parametrize("down_s", [DOWN_S, pytest.param(150, marks=pytest.mark.nightly)])
async def test_an_orderly_stop_under_load_is_waited_out(
    own: Cluster, namespace: str, fitted: Calibrated, down_s: int
) -> None:
    """The broker leaves as an operator stops it, and its clients are told so, while more is in flight than the producer
    takes at a time. Nothing is lost, nothing doubled, and the worker is the same one."""
    config = kafka_config(own.bootstrap, namespace, state={"blocks": 32})
    (node,) = own.nodes
    await topics.create(config, RAW_PARTITIONS)
    async with working(config, fitted, "sketch", "judge", "link") as (worker, running):
        await until(lambda: asyncio.sleep(0, worker.ready), "ready")
        enough = asyncio.Event()
        writing = asyncio.create_task(loaded(config, enough))
        await until(
            lambda: all(runner.lag() and sum(runner.stage.committable().values()) > 5 for runner in worker.runners),
            "under load",
        )
        await asyncio.to_thread(node.stop)
        await until(lambda: running.done() or worker.liveness.unavailable_s > down_s, "away")
        assert not running.done(), running
        enough.set()
        node.start()
        await asyncio.to_thread(node.await_accepting)
        await writing
        await until(lambda: ready(worker), "ready again")
        await write_raw(config, sweeps(2, 60, seed=6, day=1_000))
        await until(lambda: running.done() or all_handled(config), "all handled")
        assert not running.done(), running
    expected = await offline(config, fitted, config.topics.raw[0])
    assert len(expected) > 4
    assert (await read_events(config)).values == {name: {value} for name, value in expected.items()}
