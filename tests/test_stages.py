"""Both stages by hand, without groups: what they refuse, what they recover, what they leave in topics."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
import pytest
from faust.types import TP
from structlog.testing import capture_logs

from detector.engine import EngineSettings, block_mark
from detector.frame import RowFrame
from streams.config.config import Config
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.kafka.clients import SendError
from streams.kafka.faust_batches import Batch
from streams.metrics import Metrics
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from streams.worker.judge import JudgeStage
from streams.worker.link import LinkStage
from streams.worker.sketch import SketchStage
from streams.worker.stage import StageError
from tests.history import Row, benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, offline, read_blocks, read_events, read_topic, write_raw


@asynccontextmanager
async def sketching(config: Config, fitted: Calibrated) -> AsyncIterator[SketchStage]:
    secrets = fitted.secrets
    sketcher = Sketcher(
        fitted.artefacts, Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed), config
    )
    stage = SketchStage(config, await probe(config.kafka), sketcher, Metrics())
    await stage.start()
    yield stage
    await stage.stop()


@asynccontextmanager
async def judging(config: Config, fitted: Calibrated) -> AsyncIterator[JudgeStage]:
    stage = JudgeStage(config, await probe(config.kafka), EngineSettings(config, fitted.artefacts), Metrics())
    await stage.start()
    yield stage
    await stage.stop()


def requests(config: Config) -> list[TP]:
    return [TP(config.topics.requests, number) for number in range(config.topics.partitions)]


def anew(partitions: Sequence[TP]) -> dict[TP, int | None]:
    return dict.fromkeys(partitions)


def batches(records: Sequence[Any]) -> list[Batch]:
    """One batch for each partition."""
    by_partition: dict[TP, list[Any]] = {}
    for record in records:
        by_partition.setdefault(TP(record.topic, record.partition), []).append(record)
    return [Batch(tp, found, 0) for tp, found in sorted(by_partition.items())]


async def sketched(config: Config, fitted: Calibrated, rows: Sequence[Row], pieces: int = 1) -> None:
    """Topics, raw records, and their frames in `requests`, each raw partition cut into pieces."""
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, rows)
    async with sketching(config, fitted) as stage:
        for batch in batches(await read_topic(config, config.topics.raw[0])):
            size = -(-len(batch.records) // pieces)
            for start in range(0, len(batch.records), size):
                await stage.process(Batch(batch.partition, batch.records[start : start + size], 0))
        await stage.release()


ROWS = [*benign(60, seed=11), *sweeps(2, 60, seed=12)]


async def test_an_old_block_written_behind_a_newer_one_is_not_what_recovery_finds(
    broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(broker, namespace)
    await sketched(config, fitted, ROWS, pieces=6)
    frames_written = await read_topic(config, config.topics.requests)
    owned = requests(config)
    halves = [Batch(b.partition, b.records[: len(b.records) // 2], 0) for b in batches(frames_written)]
    async with judging(config, fitted) as zombie, judging(config, fitted) as heir:
        await zombie.acquire(owned, anew(owned))
        for batch in halves:
            await zombie.process(batch)
        await heir.acquire(owned, anew(owned))
        for batch in batches(frames_written):
            await heir.process(batch)
        await heir.release()
        heirs = heir.committable()
        await zombie.release()  # it wakes and writes what it still holds
    assert dict(heirs) == {batch.partition: batch.end for batch in batches(frames_written)}
    last = {record.key: record for record in await read_blocks(config)}
    assert any(block_mark(record.value)[2] < heirs[requests(config)[record.partition]] for record in last.values())

    async with judging(config, fitted) as third:
        await third.acquire(owned, anew(owned))
        before = await read_events(config)
        for batch in batches(frames_written):
            await third.process(batch)  # all of it again
        after = await read_events(config)
    assert after == before, "what the state holds is not decided again"
    expected = await offline(config, fitted, config.topics.raw[0])
    assert {name: values for name, values in after.values.items()} == {name: {v} for name, v in expected.items()}


async def test_offsets_wait_for_blocks_and_blocks_are_written_once_a_round(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace, state={"round_s": 0.5})
    await sketched(config, fitted, benign(60, seed=13))
    owned = requests(config)
    async with judging(config, fitted) as judge:
        await judge.acquire(owned, anew(owned))
        for batch in batches(await read_topic(config, config.topics.requests)):
            await judge.process(batch)
            assert judge.committable()[batch.partition] == 0, "no event, no block written: nothing to commit"
        for _ in range(5):
            await judge.tick()
        ends = {b.partition: b.end for b in batches(await read_topic(config, config.topics.requests))}
        assert dict(judge.committable()) == ends
        first_round = await read_blocks(config)
        assert len(first_round) == len({record.key for record in first_round}) > 6
        for _ in range(5):
            await judge.tick()
        second = await read_blocks(config)
    assert sorted(record.key for record in second) == sorted(2 * [record.key for record in first_round])


async def test_a_judge_whose_topic_was_made_anew_stops(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await sketched(config, fitted, benign(20, seed=14))
    owned = requests(config)
    async with judging(config, fitted) as judge:
        await judge.acquire(owned, anew(owned))
        for batch in batches(await read_topic(config, config.topics.requests)):
            await judge.process(batch)
        await judge.release()
    other = kafka_config(embedded_broker, namespace, topics={"requests": f"{namespace}.again"})
    await topics.create(other)
    async with judging(other, fitted) as judge:
        with pytest.raises(
            StageError, match=r"the state has reached offset [1-9].* log ends at 0: the topic was re-created"
        ):
            await judge.acquire(requests(other), anew(requests(other)))


async def test_a_message_that_is_no_frame_becomes_a_dead_letter(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace, topics={"partitions": 1})
    await sketched(config, fitted, benign(20, seed=15))
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(config.topics.requests, b"no frame", partition=0)
    await producer.send_and_wait(config.topics.requests, None, key=b"k", partition=0)
    await producer.stop()
    async with judging(config, fitted) as judge:
        await judge.acquire(requests(config), anew(requests(config)))
        (batch,) = batches(await read_topic(config, config.topics.requests))
        await judge.process(batch)
        await judge.release()
        assert judge.committable() == {batch.partition: batch.end}
    letters = await read_topic(config, config.topics.dlq)
    assert [letter.value for letter in letters if letter.key is None] == [b"no frame"]
    assert len(letters) == 2
    headers = dict(letters[0].headers)
    assert headers["__streams.errors.topic"] == config.topics.requests.encode()
    assert b"expected a frame" in headers["__streams.errors.message"]


async def test_a_sketch_whose_topic_was_made_anew_stops_and_names_the_knob(
    broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, benign(20, seed=16))
    place = TP(config.topics.raw[0], 0)
    async with sketching(config, fitted) as stage:
        await stage.acquire([place], {place: 3})
        with pytest.raises(StageError, match=r"read up to 1000000, .* re-created. Set input.incarnation"):
            await stage.acquire([place], {place: 1_000_000})


async def test_partitions_that_differ_from_the_configuration_stop_both(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    await topics.create(kafka_config(embedded_broker, namespace), RAW_PARTITIONS)
    config = kafka_config(embedded_broker, namespace, topics={"partitions": 5})
    with pytest.raises(StageError, match=r"expected 5 partitions \(topics.partitions\); got 3"):
        async with sketching(config, fitted):
            pass
    with pytest.raises(StageError, match=r"expected 5 partitions.*judge_state: 3"):
        async with judging(config, fitted):
            pass


async def test_rejects_keep_bytes_and_key_unless_they_are_too_long_for_the_topic(
    broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(broker, namespace, input={"max_record_bytes": 2_000})
    await topics.create(config, RAW_PARTITIONS)
    good = json.dumps(benign(1, seed=17)[0] | {"request_id": "r"}).encode()
    long = b" " * (topics.dead_letter_bytes(config) - 40_000) + b"x"
    longer = b" " * topics.dead_letter_bytes(config)
    place = TP(config.topics.raw[0], 0)
    values = (b"{not json", good, long, longer)
    records = [
        aiokafka.ConsumerRecord(place.topic, 0, n, 0, 0, b"key", value, None, 3, len(value), (("own", b"h"),))
        for n, value in enumerate(values)
    ]
    async with sketching(config, fitted) as stage:
        await stage.process(Batch(place, records, 0))
        await stage.release()
        assert stage.committable() == {place: 4}
    letters = {}
    for letter in await read_topic(config, config.topics.dlq):
        headers = dict(letter.headers)
        assert headers["__streams.errors.topic"] == place.topic.encode()
        letters[int(headers["__streams.errors.offset"])] = (letter.key, letter.value, headers)
    assert set(letters) == {0, 2, 3}
    assert letters[0][:2] == (b"key", b"{not json") and letters[0][2]["own"] == b"h"
    assert letters[2][:2] == (b"key", long)
    assert letters[3][1] == b"" and letters[3][2]["probewatch-omitted-bytes"] == str(len(longer)).encode()
    written = await read_topic(config, config.topics.requests)
    assert [frames.decode(r.value, r.partition, r.offset).rows.offset.tolist() for r in written] == [[1]]  # type: ignore[union-attr]


async def test_a_row_on_which_encoding_fails_is_a_dead_letter_and_the_others_travel(
    embedded_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, benign(50, seed=18))
    batch = batches(await read_topic(config, config.topics.raw[0]))[0]
    culprit, encode = batch.records[3].offset, frames.encode

    def failing(frame: RowFrame) -> bytes:
        if culprit in frame.rows.offset:
            raise OverflowError("planted text of the record")
        return encode(frame)

    monkeypatch.setattr(frames, "encode", failing)
    with capture_logs() as logs:
        async with sketching(config, fitted) as stage:
            await stage.process(batch)
            await stage.process(batch)
            await stage.release()
            assert stage.committable() == {batch.partition: batch.end}
    told = [entry for entry in logs if "report this" in entry["event"]]
    assert len(told) == 1 and "OverflowError, test_stages.py:" in told[0]["fault"] and "planted" not in repr(told)
    letters = await read_topic(config, config.topics.dlq)
    assert [letter.value for letter in letters] == [batch.records[3].value] * 2
    assert dict(letters[0].headers)["__streams.errors.exception"] == b"probewatch.reject.internal"
    written = [frames.decode(r.value, r.partition, r.offset) for r in await read_topic(config, config.topics.requests)]
    offsets = sorted({offset for frame in written for offset in frame.rows.offset.tolist()})  # type: ignore[union-attr]
    assert offsets == [record.offset for record in batch.records if record.offset != culprit]


@pytest.mark.kafka
async def test_a_frame_that_fails_ends_the_stage_with_nothing_to_commit(
    apache_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(apache_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, benign(50, seed=18))
    await shrink(config)
    batch = batches(await read_topic(config, config.topics.raw[0]))[0]
    async with sketching(config, fitted) as stage:
        with pytest.raises(ExceptionGroup) as caught:
            await stage.process(batch)
            await stage.process(batch)
        assert caught.group_contains(SendError, match="MessageSizeTooLarge.* raise the topic")
        assert stage.committable() == {}
    assert await read_topic(config, config.topics.requests) == []


async def test_a_batch_travels_while_the_next_is_sketched_and_nothing_is_sent_behind_a_failure(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, benign(50, seed=19))
    first, second = batches(await read_topic(config, config.topics.raw[0]))
    async with sketching(config, fitted) as stage:
        await stage.process(first)
        assert stage._in_flight is not None and not stage._in_flight.done()
        assert stage.committable() == {}, "sent, and not acknowledged yet"
        await stage.process(second)
        assert stage.committable() == {first.partition: first.end}
        await asyncio.wait([stage._in_flight])
        await stage.tick()
        assert stage.committable() == {first.partition: first.end, second.partition: second.end}
        written = await read_topic(config, config.topics.requests)

        await stage._producer.stop()  # whatever is sent from now on fails
        await stage.process(second)
        for step in (stage.process(first), stage.tick(), stage.release()):
            with pytest.raises(ExceptionGroup) as caught:
                await step
            assert caught.group_contains(SendError, match="ProducerClosed")
    assert await read_topic(config, config.topics.requests) == written


async def test_batches_of_one_fetch_share_their_frames(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await write_raw(config, benign(50, seed=20))
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    for partition in range(RAW_PARTITIONS):
        await producer.send_and_wait(config.topics.raw[0], b"{" + b"x" * partition, partition=partition)
    await producer.stop()
    first, second = batches(await read_topic(config, config.topics.raw[0]))

    async def sources() -> list[set[str]]:
        """Raw partitions of each frame that was written."""
        written = [frames.decode(r.value, 0, 0) for r in await read_topic(config, config.topics.requests)]
        return [{frame.source_of(row) for row in range(frame.rows.count)} for frame in written]  # type: ignore[union-attr]

    async with sketching(config, fitted) as stage:
        await stage.process(first._replace(more=True))
        assert stage._in_flight is None and stage.committable() == {}
        await stage.process(second)
        await stage.release()
        assert stage.committable() == {first.partition: first.end, second.partition: second.end}
        shared = await sources()
        both = {f"{config.topics.raw[0]}[{partition}]" for partition in range(RAW_PARTITIONS)}
        assert both in shared and len(shared) <= config.topics.partitions
        places = [dict(letter.headers) for letter in await read_topic(config, config.topics.dlq)]
        assert sorted((place["__streams.errors.partition"], place["__streams.errors.offset"]) for place in places) == [
            (b"%d" % batch.partition.partition, b"%d" % (batch.end - 1)) for batch in (first, second)
        ]

        await stage.process(first._replace(more=True))  # and a rebalance takes the rest
        await stage.tick()
        await stage.release()
        assert len(await sources()) > len(shared)


async def shrink(config: Config) -> None:
    """From now on the broker refuses every frame."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    small = {"max.message.bytes": "100"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, config.topics.requests, configs=small)])
    await admin.close()
    await asyncio.sleep(0.5)


async def test_every_stage_offers_its_group_one_assignor(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    """With two the library joins twice, and two members that come at once make each other join again without end."""
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    async with sketching(config, fitted) as sketch, judging(config, fitted) as judge:
        link = LinkStage(config, await probe(config.kafka), fitted.artefacts, Metrics())
        offered = [stage.consumer_arguments.get("partition_assignment_strategy") for stage in (sketch, judge, link)]
    assert offered[0] is None and [len(some or ()) for some in offered[1:]] == [1, 1]
