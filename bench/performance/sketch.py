"""How fast `sketch` turns raw records into frames, for each form of input, beside the plain reader of the same topic.

Sketch: the same `getmany`, then `Sketcher.frames` and `frames.encode`. With sending, every frame is also written to a
topic and acknowledged. All on one core; the broker is another process.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from bench.fixtures import KINDS, Kind, artefacts, calibrated, records
from bench.performance.common import Run, in_turn, ratios, spread
from bench.performance.plain import CLIENTS, fill, make, plain, read
from streams.config.config import Config
from streams.progress import Reporter
from streams.sketch.elements import RawMessage
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from streams.worker.allocator import settle

METHODS = ("plain", "sketch", "sketch and send")


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    settle()  # as the worker does; the plain reader profits too
    kinds = KINDS[1:2] if run.quick else KINDS
    rounds, count = run.size(7, 3), run.size(40_000, 10_000)
    done = reporter.task("sketch", len(kinds) * rounds * len(METHODS))
    return {"records": count, "kinds": [compare(run, kind, count, rounds, done) for kind in kinds]}


def compare(run: Run, kind: Kind, count: int, rounds: int, done: Callable[[int], None]) -> dict[str, Any]:
    """Rates by processor time of this process, and their ratios to the plain reader's in the same round."""
    values = list(records(kind, count, CLIENTS))
    topic = f"{run.namespace}.sketch.{kind.name.replace(' ', '-').replace(',', '')}"
    frames_topic = f"{topic}.frames"
    asyncio.run(fill(run, topic, values))
    asyncio.run(make(run, [frames_topic]))
    tasks = {
        "plain": lambda: count / asyncio.run(read(run, topic, count, plain)),
        "sketch": lambda: count / asyncio.run(read(run, topic, count, sketch)),
        "sketch and send": lambda: count / asyncio.run(_sending(run, topic, count, frames_topic)),
    }
    tasks["sketch"]()  # caches fill once, as they do in a worker that lives for weeks
    rates = in_turn(tasks, rounds, done)
    return {
        "kind": kind.name,
        "record_bytes": sum(map(len, values)) / count,
        "rates": {name: spread(found) for name, found in rates.items()},
        "of_plain": {name: ratios(found, rates["plain"]) for name, found in rates.items() if name != "plain"},
    }


async def sketch(batch: list[Any]) -> None:
    sketched(batch)


def sketched(batch: Sequence[RawMessage]) -> list[bytes]:
    """Frames of a batch, as they would be sent."""
    result = sketcher().frames("bench", 0, "0", batch, Config().topics.partitions)
    if result.rejects or result.unjudged:
        raise RuntimeError(f"records that sketch cannot read: {result.rejects[:1]}, {result.unjudged}")
    return [frames.encode(frame) for frame in result.frames]


@functools.cache
def sketcher() -> Sketcher:
    secrets = calibrated()[1]
    return Sketcher(artefacts(), Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed), Config())


async def _sending(run: Run, topic: str, count: int, target: str) -> float:
    producer = AIOKafkaProducer(bootstrap_servers=run.bootstrap, acks="all", max_request_size=2**20)
    await producer.start()

    async def send(batch: list[Any]) -> None:
        await asyncio.gather(*[await producer.send(target, value) for value in sketched(batch)])

    try:
        return await read(run, topic, count, send)
    finally:
        await producer.stop()
