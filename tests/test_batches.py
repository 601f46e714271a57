"""The batch transport on a broker: all records, in order, once; hand-over between members; lost batches are seen."""

import asyncio
from collections.abc import Mapping, Sequence

import aiokafka
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from faust.types import TP

from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import probe
from streams.kafka.faust_batches import Batch, Memory
from streams.kafka.topic_ids import topic_ids
from streams.worker.stage import LostBatchError, StageError, StageRunner
from tests.kafka_config import kafka_config
from tests.pipeline import HANGS_S, until


class Collecting:
    """Keeps every record it is given; commits what it has."""

    name = "collecting"
    tick_s = 1.0
    memory: Memory | None = None
    remedy = "Start again."

    def __init__(self, topic: str) -> None:
        self.topics = (topic,)
        self.records: list[tuple[int, int]] = []
        self.owned: list[int] = []
        self.sizes: list[int] = []
        self.committed: Mapping[TP, int | None] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.ends: dict[TP, int] = {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def tick(self) -> None: ...

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        self.owned, self.committed, self.ends = [tp.partition for tp in partitions], committed, {}

    async def process(self, batch: Batch) -> None:
        await self.gate.wait()
        self.records += [(r.partition, r.offset) for r in batch.records]
        self.sizes.append(len(batch.records))
        self.ends[batch.partition] = batch.end

    def committable(self) -> Mapping[TP, int]:
        return self.ends

    async def release(self) -> None: ...


async def filled_topic(config: Config, partitions: int, records: int) -> str:
    topic = config.topics.raw[0]
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()
    await fill(config, partitions, records)
    return topic


async def fill(config: Config, partitions: int, records: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, linger_ms=5)
    await producer.start()
    for number in range(records):
        await producer.send(config.topics.raw[0], b"%d" % number, partition=number % partitions)
    await producer.stop()


async def committed(config: Config, topic: str) -> int | None:
    """What the group has committed in partition 0, as the broker tells anyone."""
    group = f"{config.kafka.group}-{Collecting.name}"
    consumer = AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    offset: int | None = await consumer.committed(TopicPartition(topic, 0))
    await consumer.stop()
    return offset


async def until_committed(config: Config, topic: str, offset: int) -> None:
    async def there() -> bool:
        return await committed(config, topic) == offset

    await until(there, f"{offset} committed")


async def until_asked(runner: StageRunner) -> None:
    """Faust has asked for records once more, as it does every second."""
    consumer = runner.app.batch_consumer
    polls = consumer.polls
    await until(lambda: consumer.polls > polls, "a poll")


async def runner_of(config: Config, stage: Collecting) -> StageRunner:
    features = await probe(config.kafka)
    return StageRunner(stage, config.kafka.group, clients.group_reading(config, features, fetch_max_wait_ms=50))


async def test_all_records_come_in_order_and_a_restart_goes_on(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    topic = await filled_topic(config, 2, 4_000)
    stage = Collecting(topic)
    runner = await runner_of(config, stage)
    await runner.start()
    assert runner.ready
    await until(lambda: len(stage.records) >= 4_000, "records")
    for partition in (0, 1):
        assert [o for p, o in stage.records if p == partition] == list(range(2_000))
    assert max(stage.sizes) > 100  # batches, not messages
    await runner.stop()

    await fill(config, 2, 10)
    again = Collecting(topic)
    second = await runner_of(config, again)
    await second.start()
    assert set(again.committed.values()) == {2_000}
    await until(lambda: len(again.records) >= 10, "records")
    assert sorted(again.records) == [(p, 2_000 + o) for p in (0, 1) for o in range(5)]
    await second.stop()


async def test_a_second_member_takes_over_without_gap_or_double(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    topic = await filled_topic(config, 4, 400)
    first, second = Collecting(topic), Collecting(topic)
    one, two = await runner_of(config, first), await runner_of(config, second)
    await one.start()
    await until(lambda: len(first.records) >= 400, "records")
    await two.start()
    await until(lambda: len(first.owned) == len(second.owned) == 2 and one.ready and two.ready, "partitions")
    await fill(config, 4, 400)
    await until(lambda: len(first.records) + len(second.records) >= 800, "records")
    await one.stop()
    await until(lambda: len(second.owned) == 4 and two.ready, "partitions")
    await fill(config, 4, 400)
    await until(lambda: len(first.records) + len(second.records) >= 1_200, "records")
    await two.stop()
    assert sorted(first.records + second.records) == [(p, o) for p in range(4) for o in range(300)]


async def test_what_is_dropped_before_the_first_commit_is_read_again(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    topic = await filled_topic(config, 1, 10)
    stage = Collecting(topic)
    stage.committable = dict  # type: ignore[method-assign]  # never done with anything
    runner = await runner_of(config, stage)
    await runner.start()
    await until(lambda: len(stage.records) == 10, "records")
    await runner.app.batch_consumer.perform_seek()
    await until(lambda: len(stage.records) == 20, "records")
    assert stage.records[10:] == stage.records[:10]
    await runner.stop()


async def test_a_lost_batch_ends_the_stage_before_anything_behind_it_is_committed(
    embedded_broker: str, namespace: str
) -> None:
    config = kafka_config(embedded_broker, namespace)
    topic = await filled_topic(config, 1, 10)
    stage = Collecting(topic)
    runner = await runner_of(config, stage)
    await runner.start()
    await until(lambda: len(stage.records) == 10, "records")
    await until_committed(config, topic, 10)
    consumer = runner.app.batch_consumer
    consumer._numbers[TP(topic, 0)] += 1  # as if one had been dropped on its way
    await fill(config, 1, 10)
    with pytest.raises(LostBatchError, match="expected batch 1; got 2"):
        await asyncio.wait_for(asyncio.shield(runner.failed), HANGS_S)
    assert len(stage.records) == 10
    assert await committed(config, topic) == 10
    await runner.abandon()


async def test_an_error_in_a_stage_ends_it_and_is_told(embedded_broker: str, namespace: str) -> None:
    config = kafka_config(embedded_broker, namespace)
    topic = await filled_topic(config, 1, 10)

    class Failing(Collecting):
        async def process(self, batch: Batch) -> None:
            raise ZeroDivisionError("as planned")

    runner = await runner_of(config, Failing(topic))
    starting = asyncio.create_task(runner.start())
    with pytest.raises(ZeroDivisionError, match="as planned"):
        await asyncio.wait_for(asyncio.shield(runner.failed), HANGS_S)
    assert await committed(config, topic) is None
    starting.cancel()
    await runner.abandon()


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "is cut off"])
async def test_behind_a_step_that_failed_nothing_is_written_or_committed(
    embedded_broker: str, namespace: str, fails: bool
) -> None:
    """What a stage holds then is ahead of what was acknowledged: a tick that waited for its turn would write it."""
    config = kafka_config(embedded_broker, namespace)
    topic = await filled_topic(config, 1, 10)

    class Failing(Collecting):
        tick_s = 0.05

        def __init__(self, topic: str) -> None:
            super().__init__(topic)
            self.after: list[str] = []
            self.began = asyncio.Event()

        async def process(self, batch: Batch) -> None:
            self.ends[batch.partition] = batch.end
            self.after = []
            self.began.set()
            await asyncio.sleep(0.5 if fails else 600.0)
            raise ZeroDivisionError("as planned")

        async def tick(self) -> None:
            self.after.append("tick")

        async def release(self) -> None:
            self.after.append("release")

    stage = Failing(topic)
    runner = await runner_of(config, stage)
    starting = asyncio.create_task(runner.start())
    await asyncio.wait_for(stage.began.wait(), HANGS_S)
    if fails:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(runner.failed), HANGS_S)
    else:
        for actor in runner.app.agents[stage.name]._actors:
            actor.actor_task.cancel()
    await asyncio.sleep(0.3)
    await runner._on_revoked()
    assert stage.after == []
    assert not runner.ready
    await asyncio.sleep(1.2)  # Faust commits every second
    assert await committed(config, topic) is None
    starting.cancel()
    await runner.abandon()


async def test_a_partition_that_is_no_longer_read_is_noticed(embedded_broker: str, namespace: str) -> None:
    """Assigned, polled, and never fetched from: what Faust is known for after rebalances and restarts of brokers."""
    config = kafka_config(embedded_broker, namespace)
    topic = await filled_topic(config, 2, 20)
    runner = await runner_of(config, stage := Collecting(topic))
    await runner.start()
    await until(lambda: len(stage.records) == 20, "records")
    ends = {TP(topic, 0): 10, TP(topic, 1): 10}
    runner.log_ends = ends
    for _ in range(3):
        await until_asked(runner)
        assert runner.overdue(50.0) is None, "all is read"
    left = aiokafka.TopicPartition(topic, 1)
    runner.app.batch_consumer._thread._ensure_consumer().pause(left)
    await fill(config, 2, 20)
    await until(lambda: len(stage.records) == 30, "records")
    runner.log_ends = {tp: 20 for tp in ends}
    said = []
    for _ in range(4):
        await until_asked(runner)
        said.append(runner.overdue(30.0))
    assert said[:2] == [None, None] and said[-1] is not None
    assert f"{topic}[1]: not read for 60 s although records wait at 10" in said[-1]
    await runner.stop()


@pytest.mark.kafka
async def test_a_topic_made_anew_is_refused_by_its_id(apache_broker: str, namespace: str) -> None:
    """On the embedded broker only while it is read: that one keeps nothing beside offsets."""
    config = kafka_config(apache_broker, namespace)
    topic = await filled_topic(config, 1, 10)
    await topics.create(config)

    def remembering(name: str) -> Collecting:
        stage = Collecting(topic)
        stage.memory = Memory(TP(config.topics.requests, 0), name)
        return stage

    runner = await runner_of(config, stage := remembering("0"))
    await runner.start()
    await until(lambda: len(stage.records) == 10, "records")
    await until_committed(config, topic, 10)
    ids = dict(runner.app.batch_consumer.topic_ids)
    runner.check_topic_ids(ids)
    with pytest.raises(StageError, match="was deleted and re-created while collecting was reading it"):
        runner.check_topic_ids({topic: "0" * 32})
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    await asyncio.sleep(0.5)
    await filled_topic(config, 1, 30)  # longer than the old one was
    async with clients.reader(config) as reader:
        now = await topic_ids(reader._client, [topic])
    assert now[topic] != ids[topic]
    with pytest.raises(StageError, match="was deleted and re-created"):
        # The group rebalances over the lost partition and meets the new id there, or somebody else tells it first.
        if runner.ready:
            runner.check_topic_ids(now)
        await asyncio.wait_for(asyncio.shield(runner.failed), HANGS_S)
    assert len(stage.records) == 10, "nothing of the new topic was taken for the old one's"
    await runner.abandon()

    second = await runner_of(config, again := remembering("0"))
    starting = asyncio.create_task(second.start())
    with pytest.raises(StageError, match="was deleted and re-created under its old name"):
        await asyncio.wait_for(asyncio.shield(second.failed), HANGS_S)
    assert again.records == []
    starting.cancel()
    await second.abandon()
    third = await runner_of(config, renamed := remembering("1"))
    await third.start()
    await until(lambda: len(renamed.records) > 0, "records")
    await third.stop()


@pytest.mark.kafka
async def test_what_retention_took_unread_is_told(apache_broker: str, namespace: str) -> None:
    config = kafka_config(apache_broker, namespace)
    topic = await filled_topic(config, 1, 10)
    first = await runner_of(config, before := Collecting(topic))
    await first.start()
    await until(lambda: len(before.records) == 10, "records")
    await first.stop()
    await fill(config, 1, 20)
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    await admin.delete_records({aiokafka.TopicPartition(topic, 0): RecordsToDelete(17)})
    await admin.close()
    second = await runner_of(config, after := Collecting(topic))
    with structlog.testing.capture_logs() as said:
        await second.start()
        await until(lambda: len(after.records) == 13, "records")
    assert [(line["at"], line["records"]) for line in said if line["log_level"] == "error"] == [(f"{topic}[0]", 7)]
    await second.stop()


async def test_a_consumer_that_has_stopped_is_noticed(embedded_broker: str, namespace: str) -> None:
    config = kafka_config(embedded_broker, namespace)
    runner = await runner_of(config, Collecting(await filled_topic(config, 1, 10)))
    await runner.start()
    for _ in range(3):
        assert runner.overdue(50.0) is None
        await until_asked(runner)
    await runner.app._fetcher.stop()
    assert runner.overdue(50.0) is None
    assert runner.overdue(50.0) is None
    assert "its consumer has stopped" in (runner.overdue(50.0) or "")
    await runner.abandon()
