"""A known history, sent to the raw topic at a steady rate, whatever happens to the brokers."""

import asyncio
import contextlib
import json
import random
import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import count
from zlib import crc32

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.config.config import Config
from tests.history import BEGIN_S, Row, benign, sweeps
from tests.pipeline import RAW_PARTITIONS

ROWS_A_SECOND = 300
WAVE_S = 100


def endless(seed: int) -> Iterator[Row]:
    """Ordinary clients and sweepers, new ones in every wave, whose rows lie between each other's; time always rises."""
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
            ts = BEGIN_S + WAVE_S * wave + place * 0.1
            yield own | {"client_id": f"{wave}-{own['client_id']}", "ts": ts, "request_id": f"r{wave}-{place}"}


class Feed:
    """What the brokers did not take is not part of the history: the raw topic alone says what is."""

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._rows = endless(seed)
        self._times_ms: list[int] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self._idle = asyncio.Event()
        self._ended = False

    @property
    def sent(self) -> int:
        return len(self._times_ms)

    def number(self, time_ms: int) -> int:
        """The row that was given this time."""
        return bisect_left(self._times_ms, time_ms)

    async def run(self) -> None:
        """Until `end`."""
        producer = AIOKafkaProducer(bootstrap_servers=self._config.kafka.bootstrap, acks="all")
        await producer.start()
        due = time.monotonic()
        while not self._ended:
            if not self._flows.is_set():
                await producer.flush()
                self._idle.set()
                await self._flows.wait()
                due = time.monotonic()
                continue
            row = next(self._rows)
            partition = crc32(row["client_id"].encode()) % RAW_PARTITIONS
            self._times_ms.append(round(row["ts"] * 1000))
            with contextlib.suppress(KafkaError):
                await producer.send(self._config.topics.raw[0], json.dumps(row).encode(), partition=partition)
            due = max(due + 1 / ROWS_A_SECOND, time.monotonic() - 1)
            if self.sent % 10 == 0:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        with contextlib.suppress(KafkaError):
            await producer.stop()

    async def pause(self) -> None:
        """Returns when everything sent is in the log, or given up."""
        self._idle.clear()
        self._flows.clear()
        await self._idle.wait()

    def resume(self) -> None:
        self._flows.set()

    def end(self) -> None:
        self._ended = True
        self._flows.set()
