"""Helpers for tests of the whole way: raw records in, events out, and what an offline fold says to the same."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detector.events.finding import Event
from models.artefacts.store import Artefacts, load_artefacts
from streams import replay
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.kafka import clients, topics
from streams.kafka.broker import log_ends, probe
from streams.progress import Silent
from streams.secrets.load import FOLDER, NAMES, Secrets, load_secrets
from streams.wire import settings_log
from tests.history import Row, benign, write_jsonl

RAW_PARTITIONS = 2
HANGS_S = 1_200


class Calibrated(NamedTuple):
    folder: Path
    artefacts: Artefacts
    secrets: Secrets


def calibrated(folder: Path) -> Calibrated:
    """Artefacts of a benign day, with secrets beside them."""
    config = Config()
    write_jsonl(folder / "benign.jsonl", benign(1_500, seed=1))
    fixed_secrets(folder)
    secrets = load_secrets(config, folder)
    calibrate(open_sources([str(folder / "benign.jsonl")], config), folder, config, secrets, Silent())
    return load_calibrated(folder)


def load_calibrated(folder: Path) -> Calibrated:
    """What `calibrated` left in this folder."""
    secrets = load_secrets(Config(), folder)
    return Calibrated(folder, load_artefacts(folder, secrets.projection_seed), secrets)


def fixed_secrets(folder: Path) -> None:
    """Secrets that are the same in every run: which events a history makes hangs on the keys."""
    (folder / FOLDER).mkdir(mode=0o700)
    for name in NAMES:
        path = folder / FOLDER / name
        path.write_text(sha256(name.encode()).hexdigest() + "\n")
        path.chmod(0o600)


async def write_raw(config: Config, rows: Sequence[Row], pause_s: float = 0.0) -> None:
    """Each client's rows in one raw partition, in order; `pause_s` after every hundred."""
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, linger_ms=2, **config.kafka.client())
    await producer.start()
    for number, row in enumerate(rows):
        partition = crc32(row["client_id"].encode()) % RAW_PARTITIONS
        value = json.dumps({"request_id": f"{row['client_id']}/{row['ts']}"} | row).encode()
        await producer.send(config.topics.raw[0], value, partition=partition)
        if pause_s and number % 100 == 99:
            await asyncio.sleep(pause_s)
    await producer.stop()


async def read_topic(config: Config, topic: str) -> list[Any]:
    """Every record of a topic, by partition and offset."""
    features = await probe(config.kafka)
    count = (await topics.partition_counts(config, [topic]))[topic]
    records: list[Any] = []
    async with clients.reader(config) as consumer:
        places = [TopicPartition(topic, number) for number in range(count)]
        ends = await log_ends(consumer, places, features)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for fetched in (await consumer.getmany(timeout_ms=100)).values():
                records += fetched
    return sorted(records, key=lambda record: (record.partition, record.offset))


async def read_blocks(config: Config) -> list[Any]:
    """Every record of the topic of state that is one of a block."""
    records = await read_topic(config, config.topics.judge_state)
    return [record for record in records if not record.key.startswith(settings_log.KEY)]


class Written(NamedTuple):
    """Events as they stand in the topics. values : id -> the different values seen under it. counts : id -> records."""

    values: dict[str, set[bytes]]
    counts: Counter[str]

    @property
    def repeated(self) -> int:
        return sum(count - 1 for count in self.counts.values())


async def read_events(config: Config) -> Written:
    values: dict[str, set[bytes]] = {}
    counts: Counter[str] = Counter()
    for topic in (config.topics.throttle, config.topics.alerts, config.topics.drift):
        for record in await read_topic(config, topic):
            name = dict(record.headers)["probewatch-id"].decode()
            values.setdefault(name, set()).add(record.value)
            counts[name] += 1
    return Written(values, counts)


async def offline(config: Config, fitted: Calibrated, topic: str, *, models: bool = True) -> dict[str, bytes]:
    """What an uninterrupted fold says to a topic, raw or frames: id -> value. models : also what `link` says."""
    spec = f"kafka://{config.kafka.bootstrap}/{topic}"

    def fold() -> list[Event]:
        sources = open_sources([spec], config)
        return replay.replay(replay.Plan(sources, config, fitted.artefacts, fitted.secrets)).events

    return {event.id: event.value for event in await asyncio.to_thread(fold) if models or event.client_key}


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Only what hangs meets the deadline, however busy the machine is."""
    deadline = time.monotonic() + HANGS_S
    while not (await met if isinstance(met := condition(), Awaitable) else met):
        assert time.monotonic() < deadline, f"not in {HANGS_S} s: {what}"
        await asyncio.sleep(0.05)


async def committed(config: Config, stage: str, topic: str, partitions: int) -> dict[int, int]:
    """Where the group of a stage stands."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap,
        group_id=f"{config.kafka.group}-{stage}",
        enable_auto_commit=False,
        **config.kafka.client(),
    )
    places = [TopicPartition(topic, number) for number in range(partitions)]
    async with consumer:
        consumer.assign(places)
        return {place.partition: await consumer.committed(place) or 0 for place in places}


async def ends(config: Config, topic: str, partitions: int) -> dict[int, int]:
    features = await probe(config.kafka)
    async with clients.reader(config) as consumer:
        found = await log_ends(consumer, [TopicPartition(topic, number) for number in range(partitions)], features)
    return {place.partition: end for place, end in found.items()}


async def all_handled(config: Config, readers: Sequence[str] = ("judge", "link")) -> bool:
    """The stages have committed all there is, also of what they write to `requests` themselves.

    For `judge` that includes the blocks. readers : the stages behind `sketch` that are running.
    """
    raw, requests = config.topics.raw[0], config.topics.requests
    if await committed(config, "sketch", raw, RAW_PARTITIONS) != await ends(config, raw, RAW_PARTITIONS):
        return False
    count = config.topics.partitions
    found = [await committed(config, stage, requests, count) for stage in readers]
    end = await ends(config, requests, count)  # asked last: whatever was committed is in the log with its consequences
    return all(one == end for one in found)
