"""Judges join, leave and are killed, one after the other, while traffic flows."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from streams.config.config import Config
from tests.faults.feed import Feed
from tests.faults.workers import WorkerProcess, installed, workers
from tests.pipeline import Calibrated, all_handled, until
from tests.scaling.takeover import Takeover, Watch

SETTLED_S = 90.0


class Judges:
    """Three of them, one at work in the beginning. takeovers : what each change came to."""

    def __init__(self, watch: Watch, known: list[WorkerProcess]) -> None:
        self.takeovers: list[Takeover] = []
        self._watch = watch
        self._known = known

    async def started(self) -> None:
        """What the first one did before anybody looked."""
        begun = time.monotonic()
        await self._watch.settled(begun, 1, SETTLED_S)
        self.takeovers.append(self._watch.takeover("start", begun))

    async def join(self, *numbers: int) -> None:
        async def change() -> None:
            for number in numbers:
                self._known[number].join()

        await self._settle("join", change)

    async def leave(self, number: int) -> None:
        async def change() -> None:
            assert await self._known[number].leave() == 0

        await self._settle("graceful leave", change)

    async def kill(self, number: int) -> None:
        await self._settle("SIGKILL", lambda: self._known[number].kill(again=False))

    async def _settle(self, name: str, change: Callable[[], Awaitable[None]]) -> None:
        begun = time.monotonic()
        await change()
        working = sum(worker.wanted for worker in self._known)
        await self._watch.settled(begun, working, SETTLED_S)
        self.takeovers.append(self._watch.takeover(name, begun))


@contextlib.asynccontextmanager
async def judges(config: Config, fitted: Calibrated, folder: Path) -> AsyncIterator[Judges]:
    """At the end everything that was fed has been judged."""
    feed = Feed(config, seed=41)
    async with workers(config, fitted, folder, {"sketch": 1, "judge": 1}) as running:
        own = installed(config, fitted)
        more = [WorkerProcess(f"judge-{number}", "judge", own, folder) for number in (1, 2)]
        for worker in more:
            await worker.leave()
        known = [worker for worker in running if worker.stage == "judge"] + more
        tasks = [asyncio.create_task(worker.keep_running()) for worker in more]
        feeding = asyncio.create_task(feed.run())
        watch = Watch(config, known)
        try:
            async with watch.looking():
                yield Judges(watch, known)
            feed.end()
            await feeding
            await until(lambda: all_handled(config, ["judge"]), "all committed")
        finally:
            await asyncio.gather(*(worker.leave() for worker in more))
            for task in [*tasks, feeding]:
                task.cancel()
        assert not any(worker.exits for worker in known), "nobody may end for another reason"
