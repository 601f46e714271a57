"""The state of many clients, made offline and put where a judge finds it: frames, blocks, committed offsets."""

from collections.abc import Iterator

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.judge import people, rows_of
from detector import engine
from detector.frame import RowFrame
from models.artefacts.store import ModelArtefact
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import probe
from streams.metrics import Metrics
from streams.wire import frames
from streams.worker.sink import Sink
from streams.worker.state_topic import StateTopic
from tests.pipeline import RAW_PARTITIONS, Calibrated

FRAME_ROWS = 2_000
ROWS_EACH = 2


async def prepare(config: Config, fitted: Calibrated, count: int) -> int:
    """Make all topics, and judge so many clients as if they had come before. Returns the bytes of their blocks."""
    await topics.create(config, RAW_PARTITIONS)
    features = await probe(config.kafka)
    settings = engine.EngineSettings(config, fitted.artefacts)
    producer = clients.producer(config, features, topics.state_bytes(config))
    state_topic, sink = StateTopic(producer, config, features, Metrics()), Sink(producer, config.topics, Metrics())
    await producer.start()
    ends, written = {}, 0
    for partition in range(config.topics.partitions):
        state = engine.open_partition(settings, partition)
        for frame in frames_of(fitted, partition, config.topics.partitions, count):
            await sink.send(engine.step(state, frame))
            value = frames.encode(frame)
            await producer.send_and_wait(config.topics.requests, value, partition=partition)
            ends[partition] = frame.offset + 1
        blocks = {block: engine.dump_block(state, block) for block in range(config.state.blocks)}
        await state_topic.write(partition, blocks)
        written += sum(map(len, blocks.values()))
    await producer.stop()
    await _commit(config, ends)
    return written


def frames_of(fitted: Calibrated, partition: int, partitions: int, count: int) -> Iterator[RowFrame]:
    (model,) = fitted.artefacts.models.values()
    rng = np.random.default_rng(partition)
    pool = people(model, rng)
    own = np.tile(np.arange(partition, count, partitions), ROWS_EACH)
    for offset, start in enumerate(range(0, len(own), FRAME_ROWS)):
        part = own[start : start + FRAME_ROWS]
        rows = rows_of(pool, part, np.zeros(len(part), np.bool_), start, rng)
        yield RowFrame(partition, offset, *_about(model), "k1", rows)


def _about(model: ModelArtefact) -> tuple[str, str, str]:
    return model.model, model.space, "elsewhere[0]"


async def _commit(config: Config, ends: dict[int, int]) -> None:
    group = f"{config.kafka.group}-judge"
    consumer = AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    places = {TopicPartition(config.topics.requests, partition): end for partition, end in ends.items()}
    consumer.assign(list(places))
    await consumer.commit(places)
    await consumer.stop()
