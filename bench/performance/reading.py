"""What it costs to bring a record in, by other means and by ours, over one topic in one run.

Faust as it comes hands over single events; that is also what doing sketch's work event by event would cost. Processor
time of this process, all threads: some of these readers fetch in threads of their own.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import confluent_kafka
import faust
from faust.types import TP

from bench.fixtures import NUMBERS, records
from bench.performance.common import Run, in_turn, ratios, spread
from bench.performance.plain import CLIENTS, FETCH_BYTES, FETCH_RECORDS, decode, fill, nothing, plain, read
from bench.performance.sketch import sketch, sketched
from streams.config.config import Config
from streams.kafka import clients
from streams.kafka.broker import Features, probe
from streams.kafka.faust_batches import Batch, Memory
from streams.progress import Reporter
from streams.sketch.sketcher import RawRecord
from streams.worker.allocator import settle
from streams.worker.app import quieten
from streams.worker.stage import StageRunner

STOCK_SHARE = 10
"""Stock Faust is shown a tenth of the records: it takes thirty times as long over each."""

LIMIT_S = 180
FIRST_EVENTS = 500
"""Events of stock Faust before its clock starts: the first come while its services do."""

_groups = itertools.count()


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    quieten()
    settle()
    count, rounds = run.size(40_000, 20_000), run.size(5, 1)
    topic = f"{run.namespace}.reading"
    asyncio.run(fill(run, topic, list(records(NUMBERS, count, CLIENTS))))
    features = asyncio.run(probe(Config(kafka={"bootstrap": run.bootstrap}).kafka))
    tasks: dict[str, Callable[[], float]] = {
        "aiokafka getmany, decoded (the plain reader)": lambda: asyncio.run(read(run, topic, count, plain)) / count,
        "aiokafka getmany": lambda: asyncio.run(read(run, topic, count, nothing)) / count,
        "confluent-kafka consume": lambda: _confluent(run, topic, count, decoded=False),
        "confluent-kafka consume, decoded": lambda: _confluent(run, topic, count, decoded=True),
        "our batches": lambda: asyncio.run(_batched(run, topic, count, features)),
        "sketch over getmany": lambda: asyncio.run(read(run, topic, count, sketch)) / count,
        "stock Faust, event by event": lambda: asyncio.run(_stock(run, topic, count // STOCK_SHARE, _ignore)),
        "stock Faust, sketch's work in each event": lambda: asyncio.run(
            _stock(run, topic, count // STOCK_SHARE, _sketch_one)
        ),
    }
    tasks["sketch over getmany"]()
    seconds = in_turn(tasks, rounds, reporter.task("reading", len(tasks) * rounds))
    base = seconds["aiokafka getmany, decoded (the plain reader)"]
    return {
        "records": count,
        "readers": [
            {"name": name, "us": spread(1e6 * one for one in spent), "times_plain": ratios(spent, base)}
            for name, spent in seconds.items()
        ],
    }


def _confluent(run: Run, topic: str, count: int, *, decoded: bool) -> float:
    """Seconds a record. librdkafka fetches ahead in threads of its own; they count."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": run.bootstrap, "group.id": "unused", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "max.partition.fetch.bytes": FETCH_BYTES,
        }
    )  # fmt: skip
    begun, seen = process_time(), 0
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    while seen < count:
        batch = consumer.consume(FETCH_RECORDS, timeout=10)
        if not batch:
            raise RuntimeError(f"{topic}: the broker gave confluent-kafka nothing for 10 s")
        for message in batch:
            value = message.value()
            if decoded:
                decode(value or b"")
        seen += len(batch)
    spent = process_time() - begun
    consumer.close()
    return spent / count


class Counting:
    """A stage that only counts; `finished` after `count` records."""

    name = "counting"
    tick_s = 60.0
    memory: Memory | None = None
    remedy = ""

    def __init__(self, topic: str, count: int) -> None:
        self.topics: Sequence[str] = (topic,)
        self.begun = 0.0
        self.finished = asyncio.Event()
        self._left = count
        self._ends: dict[TP, int] = {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def tick(self) -> None: ...
    async def release(self) -> None: ...

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        self.begun = process_time()

    def committable(self) -> Mapping[TP, int]:
        return self._ends

    async def process(self, batch: Batch) -> None:
        self._left -= len(batch.records)
        self._ends[batch.partition] = batch.end
        if self._left <= 0:
            self.finished.set()


async def _batched(run: Run, topic: str, count: int, features: Features) -> float:
    config = Config(kafka={"bootstrap": run.bootstrap})
    stage = Counting(topic, count)
    arguments = clients.group_reading(config, features, fetch_max_wait_ms=50, max_partition_fetch_bytes=FETCH_BYTES)
    runner = StageRunner(stage, f"{run.namespace}.batched-{next(_groups)}", arguments)
    await runner.start()
    await _until(stage.finished, runner.failed)
    spent = process_time() - stage.begun
    await runner.stop()
    return spent / count


def _ignore(number: int, value: bytes) -> None:
    """Faust alone."""


def _sketch_one(number: int, value: bytes) -> None:
    sketched([RawRecord(number, value, None, (), -1)])


async def _until(finished: asyncio.Event, failed: "asyncio.Future[None]") -> None:
    """Raises the error of `failed`, or TimeoutError."""
    waiting = asyncio.create_task(finished.wait())
    done, _ = await asyncio.wait((waiting, failed), timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if failed in done:
        failed.result()
    if not done:
        raise TimeoutError(f"not in {LIMIT_S} s")


async def _stock(run: Run, topic: str, count: int, handle: Callable[[int, bytes], object]) -> float:
    """Seconds an event, Faust as it comes."""
    with tempfile.TemporaryDirectory() as folder:  # Faust insists on one; nothing is written to it
        app = faust.App(
            f"{run.namespace}.stock-{next(_groups)}",
            broker=f"kafka://{run.bootstrap}",
            loop=asyncio.get_running_loop(),
            web_enabled=False,
            topic_disable_leader=True,
            broker_session_timeout=4,
            broker_heartbeat_interval=1,
            consumer_auto_offset_reset="earliest",
            datadir=folder,
        )
        finished, marks = asyncio.Event(), [0.0, 0.0]

        async def counting(stream: Any) -> None:
            seen = 0
            async for value in stream:
                handle(seen, value)
                seen += 1
                if seen == FIRST_EVENTS:
                    marks[0] = process_time()
                if seen == count:
                    marks[1] = process_time()
                    finished.set()

        app.agent(app.topic(topic, value_serializer="raw", value_type=bytes))(counting)
        await app.start()
        await asyncio.wait_for(finished.wait(), LIMIT_S)
        await app.stop()
    return (marks[1] - marks[0]) / (count - FIRST_EVENTS)
