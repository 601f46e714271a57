"""Who owns which partition of `requests`, seen from outside every tenth of a second."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import aiohttp

from streams.config.config import Config
from tests.faults.workers import WorkerProcess

POLL_S = 0.1
_LINE = re.compile(r"^(probewatch_\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)


class Seen(NamedTuple):
    """One look. owned : partitions that some worker has, with their state. figures : by worker's name."""

    at_s: float
    owned: frozenset[int]
    figures: dict[str, dict[str, float]]


class Takeover(NamedTuple):
    """What a change of workers came to. gap_s : longest time that a partition had no owner. clients : in memory."""

    change: str
    workers: int
    gap_s: float
    kept: int
    loaded: int
    loaded_mb: float
    recovery_s: float
    clients: int


class Watch:
    """Looks at judges' metrics. workers : those that are there now; may be changed at any time."""

    def __init__(self, config: Config, workers: Sequence[WorkerProcess]) -> None:
        self.workers = list(workers)
        self.looks: list[Seen] = []
        self._topic = config.topics.requests
        self._partitions = config.topics.partitions

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                self.looks.append(await self._look(http))
                await asyncio.sleep(POLL_S)

    async def _look(self, http: aiohttp.ClientSession) -> Seen:
        workers = list(self.workers)
        found = await asyncio.gather(*(figures_of(http, worker) for worker in workers))
        owned: set[int] = set()
        figures = {}
        for worker, own in zip(workers, found, strict=True):
            figures[worker.name] = own
            if own.get('probewatch_stage_ready{stage="judge"}') == 1:
                mark = f'topic="{self._topic}"'
                owned |= {int(place[1]) for name in own if mark in name and (place := _PARTITION.search(name))}
        return Seen(time.monotonic(), frozenset(owned), figures)

    async def settled(self, since_s: float, counts: int, within_s: float) -> None:
        """Until every partition is owned and `counts` workers have some. Raises AssertionError."""
        deadline = time.monotonic() + within_s
        while not self._complete(since_s, counts):
            assert time.monotonic() < deadline, f"not in {within_s:.0f} s: {self.looks[-1:]}"
            await asyncio.sleep(POLL_S)

    def _complete(self, since_s: float, counts: int) -> bool:
        last = self.looks[-1] if self.looks else None
        if last is None or last.at_s <= since_s or len(last.owned) < self._partitions:
            return False
        owners = [own for own in last.figures.values() if any(self._topic in name for name in own)]
        return len(owners) == counts

    def takeover(self, change: str, since_s: float) -> Takeover:
        """From `since_s` on, when something was changed, until now."""
        gaps = [self._gap(partition, since_s) for partition in range(self._partitions)]
        figures = [own for own in self.looks[-1].figures.values() if any(self._topic in name for name in own)]
        kept = int(sum(own["probewatch_kept_partitions"] for own in figures))
        return Takeover(
            change,
            len(figures),
            max(gaps),
            kept,
            self._partitions - kept,
            sum(own["probewatch_recovery_bytes"] for own in figures) / 1e6,
            max(own["probewatch_recovery_seconds"] for own in figures),
            int(sum(own["probewatch_clients"] for own in figures)),
        )

    def _gap(self, partition: int, since_s: float) -> float:
        """Longest time without an owner, s. What was owned when something changed is looked at from that moment on."""
        longest, last_s = 0.0, since_s
        for look in self.looks:
            if look.at_s > since_s and partition in look.owned:
                longest, last_s = max(longest, look.at_s - last_s), look.at_s
        return longest


_PARTITION = re.compile(r'partition="(\d+)"')


async def figures_of(http: aiohttp.ClientSession, worker: WorkerProcess) -> dict[str, float]:
    """What a worker's metrics say, by name with labels; nothing if it does not answer."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with http.get(f"{worker.address}/metrics") as answer:
            found = _LINE.findall(await answer.text())
            return {f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in found}
    return {}
