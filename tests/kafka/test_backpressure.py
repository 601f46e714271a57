"""What is slow makes others wait, in the log and not in memory: resident memory stays bounded, lag is there to see."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import aiohttp
import confluent_kafka
import pytest

from streams.config.config import Config
from streams.kafka import topics
from tests.faults.feed import endless
from tests.faults.workers import WorkerProcess, start_server, workers
from tests.kafka_broker import Cluster, kafka_cluster
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, committed, ends, offline, read_events, until
from tests.scaling.takeover import figures_of

pytestmark = pytest.mark.kafka

WAITING = 500_000
SLOW_ROWS = 20_000
STOPPED_S, RUNNING_S = 0.4, 0.1
LOOK_S = 0.2
GROWTH_MB = 200.0
"""On top of a worker that is ready and has nothing to do. All that waits would be 190 MB as it stands in the log, and
many times that as objects."""

Send = Callable[[signal.Signals], None]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with kafka_cluster() as found:
        yield found


class Watched(NamedTuple):
    """resident_mb, lag : of one worker, look by look; the first memory is that of a worker without work."""

    resident_mb: list[float]
    lag: list[float]

    @property
    def growth_mb(self) -> float:
        return max(self.resident_mb) - self.resident_mb[0]


@contextlib.asynccontextmanager
async def watching(worker: WorkerProcess) -> AsyncIterator[Watched]:
    seen = Watched([resident_mb(worker)], [])

    async def look() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                seen.resident_mb.append(resident_mb(worker))
                found = await figures_of(http, worker)
                seen.lag.append(sum(value for name, value in found.items() if name.startswith("probewatch_lag{")))
                await asyncio.sleep(LOOK_S)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()


def resident_mb(worker: WorkerProcess) -> float:
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@contextlib.asynccontextmanager
async def in_slices(send: Send) -> AsyncIterator[None]:
    """A process runs a fifth of the time."""

    async def slice_up() -> None:
        while True:
            send(signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            send(signal.SIGCONT)
            await asyncio.sleep(RUNNING_S)

    task = asyncio.create_task(slice_up())
    try:
        yield
    finally:
        task.cancel()
        send(signal.SIGCONT)


def fill(config: Config, count: int, seed: int) -> None:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": config.kafka.bootstrap, "queue.buffering.max.messages": 1_000_000}
    )
    rows = endless(seed)
    for number in range(count):
        row = next(rows)
        partition = crc32(row["client_id"].encode()) % RAW_PARTITIONS
        producer.produce(config.topics.raw[0], json.dumps(row).encode(), partition=partition)
        if number % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


async def test_half_a_million_waiting_records_do_not_fill_a_sketch(
    cluster: Cluster, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    config = kafka_config(cluster.bootstrap, namespace)
    await topics.create(config, RAW_PARTITIONS)
    await asyncio.to_thread(start_server, fitted)
    async with workers(config, fitted, tmp_path, {"sketch": 1}) as (sketch,):
        await asyncio.to_thread(repeat, config, WAITING)
        async with watching(sketch) as seen:
            await until(lambda: sketched(config), "all sketched")
        assert not sketch.exits
    print(f"\n{seen.growth_mb:.0f} MB on top of {seen.resident_mb[0]:.0f}, lag up to {max(seen.lag):,.0f}")
    assert seen.growth_mb < GROWTH_MB
    assert max(seen.lag) > WAITING / 4


def repeat(config: Config, count: int) -> None:
    """Many records of a few clients: what they say does not matter here."""
    rows = endless(51)
    values = [json.dumps(next(rows)).encode() for _ in range(5_000)]
    settings = {"bootstrap.servers": config.kafka.bootstrap, "queue.buffering.max.messages": 1_000_000}
    producer = confluent_kafka.Producer(settings)
    for number in range(count):
        producer.produce(config.topics.raw[0], values[number % len(values)], partition=number % RAW_PARTITIONS)
        if number % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


async def sketched(config: Config) -> bool:
    raw = config.topics.raw[0]
    return await committed(config, "sketch", raw, RAW_PARTITIONS) == await ends(config, raw, RAW_PARTITIONS)


@pytest.mark.parametrize("slow", ["broker", "judge"])
async def test_what_is_slow_costs_time_and_neither_memory_nor_events(
    cluster: Cluster, namespace: str, fitted: Calibrated, tmp_path: Path, slow: str
) -> None:
    plain = kafka_config(cluster.bootstrap, namespace)
    config = plain.model_copy(update={"kafka": plain.kafka.model_copy(update={"session_timeout_s": 10.0})})
    await topics.create(config, RAW_PARTITIONS)
    await asyncio.to_thread(start_server, fitted)
    async with workers(config, fitted, tmp_path, {"sketch": 1, "judge": 1}) as (sketch, judge):
        send = cluster.nodes[0].send if slow == "broker" else judge.send
        async with watching(sketch) as left, watching(judge) as right:
            feeding = asyncio.create_task(asyncio.to_thread(fill, config, SLOW_ROWS, 52))
            async with in_slices(send):
                begun = time.monotonic()
                await feeding
                await asyncio.sleep(max(0.0, 10 - (time.monotonic() - begun)))
            await until(lambda: all_handled(config, ["judge"]), "all committed")
            await asyncio.sleep(3 * LOOK_S)
        assert not sketch.exits and not judge.exits
    print(f"\nslow {slow}: sketch {left.growth_mb:.0f} MB, judge {right.growth_mb:.0f} MB more;", end=" ")
    print(f"lag up to {max(left.lag):,.0f} records, {max(right.lag):,.0f} frames")  # 0 if one fetch took all there was
    assert left.growth_mb < GROWTH_MB and right.growth_mb < GROWTH_MB
    assert left.lag[-1] == right.lag[-1] == 0
    expected = await offline(config, fitted, config.topics.requests, models=False)
    written = await read_events(config)
    assert {name: {value} for name, value in expected.items()} == written.values and len(expected) > 10
