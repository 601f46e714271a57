"""Damage in state topics: older records count, what they lack is read again, and no event is other than it was."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import aiokafka
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from faust.types import TP

from detector import link
from detector.engine import DamagedBlockError, block_mark
from detector.link_fold import DamagedStateError
from streams.config.config import Config
from streams.kafka import topics
from streams.kafka.faust_batches import Batch
from streams.worker.judge import JudgeStage
from streams.worker.stage import StageError
from tests import test_link as link_tests
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, offline, read_blocks, read_events, read_topic
from tests.test_stages import ROWS, anew, batches, judging, requests, sketched

Write = Callable[[str, int, bytes | None, bytes | None], Awaitable[None]]


class Halfway(NamedTuple):
    """A judge was killed behind half of the log, everything before that committed. newest : key -> last block."""

    owned: list[TP]
    committed: dict[TP, int | None]
    newest: dict[bytes, Any]
    all: list[Batch]


async def halfway(config: Config, fitted: Calibrated) -> Halfway:
    await sketched(config, fitted, ROWS, pieces=6)
    whole, owned = batches(await read_topic(config, config.topics.requests)), requests(config)
    async with judging(config, fitted) as judge:
        await judge.acquire(owned, anew(owned))
        for part in (0, 1):
            for batch in whole:
                quarter = len(batch.records) // 4
                await judge.process(Batch(batch.partition, batch.records[part * quarter : (part + 1) * quarter], 0))
            await judge.release()
        committed = dict(judge.committable())
    assert all(committed.values())
    newest = {record.key: record for record in await read_blocks(config)}
    return Halfway(owned, {**committed}, newest, whole)


async def write(config: Config, records: Sequence[tuple[int, bytes | None, bytes | None]], topic: str = "") -> None:
    """(partition, key, value) into a topic, judge-state unless told otherwise."""
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        for partition, key, value in records:
            await producer.send_and_wait(topic or config.topics.judge_state, value, key=key, partition=partition)


async def the_rest(judge: JudgeStage, at: Halfway) -> None:
    """What Kafka would give from where the stage wants to go on."""
    begin = judge.committable()
    for batch in at.all:
        records = [record for record in batch.records if record.offset >= begin[batch.partition]]
        await judge.process(Batch(batch.partition, records, 0))
    await judge.release()


async def same_events(config: Config, fitted: Calibrated) -> None:
    expected = await offline(config, fitted, config.topics.raw[0])
    assert len(expected) > 4
    assert (await read_events(config)).values == {name: {value} for name, value in expected.items()}


def flipped(value: bytes) -> bytes:
    return value[:-9] + bytes([value[-9] ^ 16]) + value[-8:]


async def test_damaged_blocks_cost_reading_again_and_no_event(
    embedded_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest record of every block is damaged; the ones before it have come half as far."""
    config = kafka_config(embedded_broker, namespace)
    at = await halfway(config, fitted)
    keep = block_mark

    def damaged(value: bytes) -> Any:
        if any(value == record.value for record in at.newest.values()):
            raise DamagedBlockError("as planned")
        return keep(value)

    async with judging(config, fitted) as judge:
        with monkeypatch.context() as patch:  # a record cannot be altered where it stands
            patch.setattr("detector.engine.block_mark", damaged)
            await judge.acquire(at.owned, at.committed)
        assert judge._metrics.damaged.labels(config.topics.judge_state)._value.get() == len(at.newest)
        begin = judge.committable()
        assert all(begin[tp] < (at.committed[tp] or 0) for tp in at.owned)
        await the_rest(judge, at)
    await same_events(config, fitted)


@pytest.mark.parametrize(
    "broken", [flipped, lambda value: value[:-1], lambda _: b"garbage", lambda _: b"", lambda _: None]
)
async def test_garbage_in_the_state_topic_stops_nothing(
    embedded_broker: str, namespace: str, fitted: Calibrated, broken: Callable[[bytes], bytes | None]
) -> None:
    """Under keys of ours, under others, under none; also whole blocks where they do not belong."""
    config = kafka_config(embedded_broker, namespace)
    at = await halfway(config, fitted)
    some = sorted(at.newest)
    value = at.newest[some[0]].value
    await write(config, [(at.newest[key].partition, key, broken(at.newest[key].value)) for key in some])
    await write(config, [(0, b"0/999", broken(value)), (0, b"key", broken(value)), (0, None, broken(value) or b"x")])
    other = (at.newest[some[0]].partition + 1) % len(at.owned)
    await write(config, [(other, b"%d/0" % other, value), (other, some[0], value)])
    async with judging(config, fitted) as judge:
        await judge.acquire(at.owned, at.committed)
        assert judge._metrics.damaged.labels(config.topics.judge_state)._value.get() == len(some) + 5
        await the_rest(judge, at)
    await same_events(config, fitted)


@pytest.mark.kafka
async def test_without_any_whole_record_it_begins_anew_or_says_that_it_cannot(
    apache_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = kafka_config(apache_broker, namespace)
    at = await halfway(config, fitted)
    keep = block_mark

    def damaged(value: bytes) -> Any:
        if keep(value).block == 1:
            raise DamagedBlockError("as planned")
        return keep(value)

    monkeypatch.setattr("detector.engine.block_mark", damaged)
    async with judging(config, fitted) as judge:
        await judge.acquire(at.owned, at.committed)
        without = {tp for tp in at.owned if b"%d/1" % tp.partition in at.newest}
        assert without and judge.committable() == {tp: 0 if tp in without else at.committed[tp] for tp in at.owned}
        admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
        await admin.start()
        first = {TopicPartition(*tp): RecordsToDelete(1) for tp in at.owned}
        await admin.delete_records(first, 10_000)
        await admin.close()
        with pytest.raises(
            StageError, match=r"blocks \[1\] are damaged; without them .* must be read from 0, but begins"
        ):
            await judge.acquire(at.owned, at.committed)
        monkeypatch.undo()
        await judge.acquire(at.owned, at.committed)
        await the_rest(judge, at)
    await same_events(config, fitted)


async def test_a_block_that_only_looks_whole_is_read_from_the_log(
    embedded_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is right, and what it holds is not: nothing of it stays in the state."""
    import zlib

    from detector.engine import BLOCK_HEAD_BYTES

    config = kafka_config(embedded_broker, namespace)
    at = await halfway(config, fitted)
    key, record = sorted(at.newest.items())[0]
    forged = record.value[8 : BLOCK_HEAD_BYTES - 1] + bytes([record.value[BLOCK_HEAD_BYTES - 1] + 1]) + b"forged"
    forged = record.value[:4] + zlib.crc32(forged).to_bytes(4) + forged
    assert block_mark(forged).offset > block_mark(record.value).offset
    await write(config, [(record.partition, key, forged)])
    async with judging(config, fitted) as judge:
        await judge.acquire(at.owned, at.committed)
        assert judge.committable()[at.owned[record.partition]] == 0
        await the_rest(judge, at)
    await same_events(config, fitted)


async def test_a_requests_topic_made_anew_and_grown_again_is_noticed(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    """Its log is as long as the old one was: only its id tells."""
    config = kafka_config(embedded_broker, namespace)
    at = await halfway(config, fitted)
    other = kafka_config(embedded_broker, namespace, topics={"requests": f"{namespace}.again"})
    await topics.create(other)
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        for batch in at.all:
            for record in batch.records:
                await producer.send_and_wait(other.topics.requests, record.value, partition=record.partition)
    owned = [TP(other.topics.requests, tp.partition) for tp in at.owned]
    async with judging(other, fitted) as judge:
        with pytest.raises(StageError, match="the topic was re-created"):
            await judge.acquire(owned, anew(owned))


async def test_a_damaged_state_of_link_costs_reading_again_and_no_record(
    embedded_broker: str, namespace: str, fitted: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = link_tests.configured(embedded_broker, namespace)
    third = len(link_tests.ROWS) // 3
    await topics.create(config, RAW_PARTITIONS)
    owned = requests(config)
    async with link_tests.linking(config, fitted) as first:
        await first.acquire(owned, anew(owned))
        for start in (0, third):
            await link_tests.sketched(config, fitted, link_tests.ROWS[start : start + third])
            await link_tests.drain(config, first)
            await first.tick()
        await first.release()
        committed: dict[TP, int | None] = {**first.committable()}
    states = await read_topic(config, config.topics.link_state)
    newest = states[-1]
    count = sum(state.value == newest.value for state in states)
    await write(config, [(0, b"link", b"garbage")], config.topics.link_state)
    await write(config, [(0, b"link", None), (0, None, flipped(newest.value))], config.topics.link_state)
    reached = link.reached

    def damaged(value: bytes) -> dict[int, int]:
        if value == newest.value:
            raise DamagedStateError("as planned")
        return reached(value)

    async with link_tests.linking(config, fitted) as stage:
        with monkeypatch.context() as patch:  # a record cannot be altered where it stands
            patch.setattr(link, "reached", damaged)
            await stage.acquire(owned, committed)
        assert stage._metrics.damaged.labels(config.topics.link_state)._value.get() == count + 3
        begin = stage.committable()
        assert any(begin[tp] < (committed[tp] or 0) for tp in owned)
        await link_tests.sketched(config, fitted, link_tests.ROWS[2 * third :])
        await link_tests.drain(config, stage)
        await stage.release()
    found = await link_tests.said(config)
    source = f"kafka://{config.kafka.bootstrap}/{config.topics.requests}"
    replayed = await asyncio.to_thread(link_tests.replayed, config, fitted, source)
    assert found == {event.id: event.value for event in replayed} != {}
