"""Workers are killed, and stopped for longer than their sessions live, in the middle of the stream.

Afterwards the set of event ids and the bytes of every event are those of one uninterrupted fold over the raw records.
"""

import asyncio
import json
import random
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest
from aiokafka import AIOKafkaProducer

from detector.config import Config
from streams import frames, topics
from tests.history import BEGIN_S, Row, benign, sweeps
from tests.kafka.workers import WorkerProcess, workers
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, read_topic, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

FAULTS = 10
ROWS_A_SECOND = 300
SESSION_S = 3.0


def endless(seed: int) -> Iterator[Row]:
    """Ordinary clients and sweepers, new ones all the time, whose rows lie between each other's."""
    rng = random.Random(seed)
    for wave in count():
        crowd = benign(60, seed=seed + wave) + sweeps(2, 40, seed=seed + wave)
        rng.shuffle(crowd)
        # Each client's own order must stay that of its time.
        by_client: dict[str, list[Row]] = {}
        for row in sorted(crowd, key=lambda row: row["ts"]):
            by_client.setdefault(row["client_id"], []).append(row)
        for place, row in enumerate(crowd):
            own = by_client[row["client_id"]].pop(0)
            ts = BEGIN_S + 100 * wave + place * 0.1
            yield own | {"client_id": f"{wave}-{own['client_id']}", "ts": ts, "request_id": f"r{wave}-{place}"}


async def feed(config: Config, rows: Iterator[Row], enough: asyncio.Event) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    sent = 0
    begun = time.monotonic()
    while not enough.is_set():
        row = next(rows)
        partition = crc32(row["client_id"].encode()) % RAW_PARTITIONS
        await producer.send(config.topics.raw[0], json.dumps(row).encode(), partition=partition)
        sent += 1
        if sent % 10 == 0:
            await asyncio.sleep(max(0.0, begun + sent / ROWS_A_SECOND - time.monotonic()))
    await producer.stop()
    return sent


async def kill(victim: WorkerProcess) -> None:
    victim.send(signal.SIGKILL)
    await asyncio.sleep(0.3)
    await victim.ready()


async def stall(victim: WorkerProcess) -> None:
    """Longer than the session: the others take over, then the sleeper wakes and believes it still owns everything."""
    exits = len(victim.exits)
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(SESSION_S + 1.5)
    victim.send(signal.SIGCONT)

    async def gone() -> bool:
        return len(victim.exits) > exits

    await until(gone, 15, f"a stalled worker ends itself: {victim.words()}")
    assert victim.exits[-1] == 1
    assert "stood still for" in victim.words()
    await asyncio.sleep(0.3)
    await victim.ready()


async def disturb(stage: str, victims: list[WorkerProcess], number: signal.Signals) -> None:
    rng = random.Random(f"{stage}-{number.name}")
    for _ in range(FAULTS):
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        victim = rng.choice(victims)
        await (kill(victim) if number == signal.SIGKILL else stall(victim))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
async def test_nothing_is_lost_and_nothing_doubled(
    apache_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path, number: signal.Signals
) -> None:
    config = kafka_config(apache_broker, namespace)
    assert config.kafka.session_timeout_s == SESSION_S
    await topics.create(config, RAW_PARTITIONS)
    enough = asyncio.Event()
    begun = time.monotonic()
    async with workers(config, fitted, tmp_path, {"sketch": 2, "judge": 2}) as running:
        feeding = asyncio.create_task(feed(config, endless(int(number)), enough))
        by_stage = {stage: [w for w in running if w.stage == stage] for stage in ("sketch", "judge")}
        try:
            await asyncio.gather(*(disturb(stage, victims, number) for stage, victims in by_stage.items()))
        finally:
            enough.set()
        sent = await feeding
        await until(lambda: all_handled(config), 60, "all committed")
        exits = {stage: sum(len(w.exits) for w in victims) for stage, victims in by_stage.items()}
        codes = [await worker.stop() for worker in running]
        said = "\n".join(worker.words() for worker in running)
    assert codes == [0] * 4, "asked to stop, every worker leaves in order"

    expected = await offline(config, fitted, config.topics.raw[0], models=False)
    written = await read_events(config)
    resent = await rows_in_requests(config) - sent
    report(number, sent, exits, len(expected), written.repeated, resent, time.monotonic() - begun)
    assert len(expected) > 100, "the stream must be worth it"
    assert set(written.values) == set(expected), "lost or invented"
    assert all(values == {expected[name]} for name, values in written.values.items()), "other bytes"
    planned = 0 if number == signal.SIGKILL else FAULTS
    assert exits == {"sketch": planned, "judge": planned}, f"no worker may end for another reason:\n{said}"


async def rows_in_requests(config: Config) -> int:
    """All rows that sketch wrote, sent twice or not; every position must be there."""
    positions: list[tuple[int, int, int]] = []
    for record in await read_topic(config, config.topics.requests):
        frame = frames.decode(record.value, record.partition, record.offset)
        rows = frame.rows  # type: ignore[union-attr]
        positions += zip(rows.source.tolist(), rows.offset.tolist(), rows.index.tolist(), strict=True)
    raw = await read_topic(config, config.topics.raw[0])
    assert len(set(positions)) == len(raw), "rows lost on the way to requests"
    return len(positions)


def report(
    number: signal.Signals, sent: int, exits: dict[str, int], events: int, repeated: int, resent: int, seconds: float
) -> None:
    print(
        f"\n{number.name}: {FAULTS} sketch and {FAULTS} judge workers, {sent} rows, {events} events;"
        f" written again {repeated} events, {resent} rows; ended themselves {exits}; {seconds:.0f} s"
    )
