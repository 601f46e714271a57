"""What the newest records of raw topics say of whoever writes them: whose clock, how far behind, keyed by what."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.adapters import Formats
from streams.config.config import Config
from streams.config.keys import ConfigError
from streams.history.order import LogOrder
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends, probe
from streams.ops.checks import Check
from streams.sketch import columns
from streams.sketch.elements import LOG_APPEND, read_records

RECORDS = 500
"""Of each partition, the newest."""

READ_S = 10.0


class Newest(NamedTuple):
    """The newest records of one topic, by partition."""

    topic: str
    records: Mapping[int, Sequence[Any]]


async def examine(config: Config) -> list[Check]:
    """Checks of every raw topic that has records, as far as this user may read it."""
    try:
        features = await probe(config.kafka)
        newest = await _newest(config, features)
    except (KafkaError, topics.TopicsError, OSError):
        return []  # the other checks say why
    return [check for one in newest for check in _checks(one, config, features)]


async def _newest(config: Config, features: Features) -> list[Newest]:
    counts = await topics.partition_counts(config, config.topics.raw)
    places = [TopicPartition(name, number) for name, count in sorted(counts.items()) for number in range(count)]
    found: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    async with clients.reader(config) as consumer:
        starts = await consumer.beginning_offsets(places) if places else {}
        ends = await log_ends(consumer, places, features) if places else {}
        filled = {place: end for place, end in ends.items() if end > starts[place]}
        consumer.assign(list(filled))
        for place, end in filled.items():
            consumer.seek(place, max(starts[place], end - RECORDS))
        deadline = time.monotonic() + READ_S
        while filled and time.monotonic() < deadline:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                found[place.topic][place.partition] += records
            filled = {place: end for place, end in filled.items() if await _position(consumer, place) < end}
    return [Newest(topic, by_partition) for topic, by_partition in sorted(found.items())]


async def _position(consumer: AIOKafkaConsumer, place: TopicPartition) -> int:
    position: int = await consumer.position(place)
    return position


def _checks(newest: Newest, config: Config, features: Features) -> list[Check]:
    name = newest.topic
    stamped = [record.timestamp_type == LOG_APPEND for records in newest.records.values() for record in records]
    found = []
    if features.stamps_records and not all(stamped):
        found.append(
            Check(
                "raw times", "warning",
                f"{name}: records bear their producer's time: clocks that run ahead or behind go unnoticed",
                f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config"
                f" {topics.STAMPED_BY}={topics.RAW_CONFIGS[topics.STAMPED_BY]}",
            )
        )  # fmt: skip
    partitions: dict[str, set[int]] = defaultdict(set)
    late_s: list[float] = []
    with suppress(ConfigError):  # said by its own check
        adapter = Formats(config).of(name)
        for partition, records in newest.records.items():
            read = read_records(records, adapter, config)
            for request in read.requests:
                partitions[request.client_id].add(partition)
            window = config.input.earliest_ms, config.input.latest_ms
            times = columns.times(read.requests, *window) if read.requests else np.zeros(0)
            appends = np.array([place.append_ms for place in read.places], np.int64)
            late_s += ((appends - times)[(appends > 0) & (times >= window[0])] / 1000).tolist()
    found += _behind(name, late_s)
    split = sum(len(own) > 1 for own in partitions.values())
    for text in LogOrder(0, 0, len(partitions), split).warnings():
        found.append(Check("raw keys", "warning", f"{name}: {text}", "let gateways key records by client_id"))
    return found or [Check("raw records", "ok", f"{name}: {len(stamped)} records, {len(partitions)} clients", "")]


def _behind(name: str, late_s: Sequence[float]) -> list[Check]:
    behind_s = float(np.quantile(late_s, 0.99, method="lower")) if late_s else 0.0
    if behind_s * 1000 <= columns.AHEAD_MS:
        return []
    finding = f"{name}: one record in a hundred is {behind_s:,.0f} s old when it arrives"
    return [Check("raw clocks", "warning", finding, "set the clocks of the gateways, or let them log at once")]
