"""`python -m bench.transport`: what a message costs to bring in, by plain `getmany`, by our batches, by stock Faust.

All three read the same topic in the same run and do nothing with what they read. Processor time of this process, all
threads: the consumers run in threads of their own, and the machine may be busy with other things.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from time import monotonic, process_time
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faust.types import TP
from rich.console import Console
from rich.table import Table

from bench.throughput import broker
from detector.config import Config
from streams import clients, topics
from streams.app import quieten
from streams.batches import Batch
from streams.embedded import Features, probe
from streams.stage import StageRunner

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "200000"))
STOCK_SHARE = 10
"""Stock Faust is shown a tenth of the messages; it takes thirty times as long over each."""

PARTITIONS = 4
VALUE = b"x" * 700


class Counting:
    """A stage that only counts; `finished` after MESSAGES."""

    name = "counting"
    tick_s = 60.0

    def __init__(self, topic: str) -> None:
        self.topics: Sequence[str] = (topic,)
        self.seen = self.batches = 0
        self.begun = 0.0
        self.finished = asyncio.Event()
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
        self.seen += len(batch.records)
        self.batches += 1
        self._ends[batch.partition] = batch.end
        if self.seen >= MESSAGES:
            self.finished.set()


async def fill(config: Config) -> None:
    await topics.create(config, PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, linger_ms=20, max_batch_size=500_000)
    await producer.start()
    for number in range(MESSAGES):
        await producer.send(config.topics.raw[0], VALUE, partition=number % PARTITIONS)
    await producer.stop()


async def plain(config: Config, features: Features) -> float:
    """µs a message, aiokafka alone."""
    arguments = clients.group_reading(config, features, fetch_max_wait_ms=50)
    consumer = AIOKafkaConsumer(config.topics.raw[0], group_id="plain", enable_auto_commit=False, **arguments)
    await consumer.start()
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=50, max_records=1)
    await consumer.seek_to_beginning()
    begun, seen = process_time(), 0
    while seen < MESSAGES:
        seen += sum(map(len, (await consumer.getmany(timeout_ms=200)).values()))
    spent = process_time() - begun
    await consumer.stop()
    return 1e6 * spent / seen


async def batched(config: Config, features: Features) -> tuple[float, float]:
    """µs a message through our transport, and messages in a batch."""
    stage = Counting(config.topics.raw[0])
    runner = StageRunner(stage, "batched", clients.group_reading(config, features, fetch_max_wait_ms=50))
    await runner.start()
    await asyncio.wait_for(stage.finished.wait(), 120)
    spent = process_time() - stage.begun
    await runner.stop()
    return 1e6 * spent / stage.seen, stage.seen / stage.batches


async def stock(config: Config) -> float:
    """µs a message, Faust as it comes."""
    app = faust.App(
        "stock",
        broker=f"kafka://{config.kafka.bootstrap}",
        loop=asyncio.get_running_loop(),
        web_enabled=False,
        topic_disable_leader=True,
        broker_session_timeout=4,
        broker_heartbeat_interval=1,
        datadir=tempfile.mkdtemp(),  # Faust insists on a folder; nothing is written to it
    )
    finished, wanted = asyncio.Event(), MESSAGES // STOCK_SHARE
    marks: list[float] = []
    seen = 0

    @app.agent(app.topic(config.topics.raw[0], value_serializer="raw", value_type=bytes))
    async def counting(stream: Any) -> None:
        nonlocal seen
        async for _ in stream:
            seen += 1
            if seen in (1_000, wanted):
                marks.append(process_time())
            if seen == wanted:
                finished.set()

    await app.start()
    await asyncio.wait_for(finished.wait(), 120)
    await app.stop()
    return 1e6 * (marks[1] - marks[0]) / (wanted - 1_000)


async def measure(bootstrap: str) -> None:
    name = f"bench-transport-{int(monotonic() * 1000)}"
    config = Config(kafka={"bootstrap": bootstrap}, topics={"raw": (name,)})
    features = await probe(config.kafka)
    await fill(config)
    base = await plain(config, features)
    ours, size = await batched(config, features)
    theirs = await stock(config)
    table = Table("transport", "µs a message", "of plain", title=f"{MESSAGES:,} messages of {len(VALUE)} B")
    table.add_row("aiokafka getmany", f"{base:.1f}", "1.0")
    table.add_row(f"our batches ({size:.0f} a batch)", f"{ours:.1f}", f"{ours / base:.1f}")
    table.add_row("stock Faust", f"{theirs:.1f}", f"{theirs / base:.1f}")
    Console(width=100).print(table)


def main() -> None:
    quieten()
    with broker() as bootstrap:
        asyncio.run(measure(bootstrap))


if __name__ == "__main__":
    main()
