"""Where faults happen: a cluster, workers of both stages, `link` beside them, and a steady feed."""

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from streams.kafka import topics
from tests.faults.admin import Admin, Offsets
from tests.faults.feed import Feed
from tests.faults.history import Life
from tests.faults.workers import Exit, WorkerProcess, all_ready, installed, kernels
from tests.kafka_broker import Cluster
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, committed, ends

WORKERS = {"sketch": 2, "judge": 2, "link": 2}
REPLICAS = 3
SETTLE_S = 180.0
ANSWER_S = 20.0
DRIFT = {"window_s": 600, "lateness_s": 60, "min_rows": 100, "patience_s": 604_800}
"""A figure of the model every few seconds of the feed; whatever is away, it is waited for."""

POLL_S = 0.2

SETTINGS_OF_ONE = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Nobody is held to anything until a fault withdraws a right. Controllers of several nodes would refuse each other
before they have read the rules."""

SETTINGS_OF_THREE = {"offsets.topic.replication.factor": "3", "min.insync.replicas": "2"}


def settings(nodes: int) -> dict[str, str]:
    return SETTINGS_OF_THREE if nodes == REPLICAS else SETTINGS_OF_ONE


class Scene:
    """What faults act on. rng : the only source of chance, so that a run's seed says what happens in it."""

    def __init__(self, cluster: Cluster, fitted: Calibrated, folder: Path, namespace: str, seed: int) -> None:
        replication = len(cluster.nodes)
        self.cluster = cluster
        self.fitted = fitted
        self.folder = folder
        self.rng = random.Random(seed)
        self.config = kafka_config(cluster.bootstrap, namespace, topics={"replication": replication}, drift=DRIFT)
        self.admin = Admin(cluster.bootstrap)
        self.feed = Feed(self.config, seed)
        own = installed(self.config, fitted)
        self.workers = [
            WorkerProcess(f"{stage}-{number}", stage, own, folder)
            for stage, members in WORKERS.items()
            for number in range(members)
        ]
        self.stopped: list[tuple[str, int]] = []
        """Who was asked to leave, and its exit code."""
        self.lives: list[Life] = []
        """What the raw topic was before it was re-created."""
        self.incarnation = self.config.input.incarnation
        self._gone: list[Exit] = []
        self._numbers = count(10)

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """Topics made, workers ready, the feed flowing; at the end everything stops, whatever happened."""
        await topics.create(self.config, RAW_PARTITIONS)
        tasks = [asyncio.create_task(worker.keep_running()) for worker in self.workers]
        try:
            await all_ready(self.workers)
            tasks.append(asyncio.create_task(self.feed.run()))
            yield
        finally:
            self.feed.end()
            await asyncio.gather(*map(self.dismiss, self.workers))
            for task in tasks:
                task.cancel()

    def of(self, stage: str) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.stage == stage]

    @property
    def exits(self) -> list[Exit]:
        """In order of time."""
        return sorted([*self._gone, *(e for w in self.workers for e in w.exits)], key=lambda exit: exit.at_s)

    def victim(self, stage: str) -> WorkerProcess:
        return self.rng.choice(self.of(stage))

    def group(self, stage: str) -> str:
        return f"{self.config.kafka.group}-{stage}"

    async def dismiss(self, worker: WorkerProcess) -> None:
        """Asked to stop: it writes what is not written, and leaves."""
        if worker.wanted:
            self.stopped.append((worker.name, await worker.leave()))

    async def welcome(self, worker: WorkerProcess) -> None:
        worker.join()
        await asyncio.sleep(0.1)
        await worker.ready()

    @contextlib.asynccontextmanager
    async def another(self, stage: str) -> AsyncIterator[WorkerProcess]:
        """One more worker of a stage, ready; it leaves in order."""
        config = self.of(stage)[0].config
        worker = WorkerProcess(f"{stage}-{next(self._numbers)}", stage, config, self.folder)
        running = asyncio.create_task(worker.keep_running())
        try:
            await asyncio.sleep(0.1)
            await worker.ready()
            yield worker
        finally:
            await self.dismiss(worker)
            running.cancel()
            self._gone += worker.exits

    async def settle(self, within_s: float = SETTLE_S) -> None:
        """Every worker ready, and all that had been sent until now handled and committed."""
        await all_ready(self.workers, within_s)
        config = self.config
        end = await self._answer(lambda: ends(config, config.topics.raw[0], RAW_PARTITIONS))
        await self._reached("sketch", config.topics.raw[0], end, within_s)
        end = await self._answer(lambda: ends(config, config.topics.requests, config.topics.partitions))
        for stage in ("judge", "link"):
            await self._reached(stage, config.topics.requests, end, within_s)
        await all_ready(self.workers, within_s)

    async def _reached(self, stage: str, topic: str, end: Offsets, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while True:
            done = await self._answer(lambda: committed(self.config, stage, topic, len(end)))
            if all(done[partition] >= offset for partition, offset in end.items()):
                return
            words = "\n".join(worker.words() for worker in self.of(stage))
            assert time.monotonic() < deadline, f"{stage} stands at {done} of {end} after {within_s:.0f} s:\n{words}"
            await asyncio.sleep(POLL_S)

    async def _answer(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """Asked again while brokers come back."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await question()
            except (KafkaError, OSError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_S)

    def configure(self, stage: str, **sections: Mapping[str, object]) -> None:
        """What the workers of a stage get at their next start."""
        for worker in self.of(stage):
            parts = {name: getattr(worker.config, name).model_copy(update=part) for name, part in sections.items()}
            worker.config = worker.config.model_copy(update=parts)

    def wipe(self) -> None:
        """Everything that workers keep on this machine."""
        for folder in (kernels(self.fitted), *(self.folder / worker.name for worker in self.workers)):
            shutil.rmtree(folder, ignore_errors=True)
