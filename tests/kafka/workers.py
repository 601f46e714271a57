"""Worker processes of one installation, started as a service manager would: whoever exits is started again."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from detector.config import Config, Web
from streams.app import run_worker
from tests.pipeline import Calibrated

READY_S = 60.0
POLL_S = 0.05

_processes = multiprocessing.get_context("forkserver")
"""Processes of their own, forked from one that has imported everything: a start costs no seconds of processor time."""
_processes.set_forkserver_preload(["tests.kafka.workers", "streams.app"])


def run(config: Config, stage: str, log: Path, port: int) -> None:
    """Main function of a worker process; all it says goes to `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(run_worker(config.model_copy(update={"web": Web(port=port)}), [stage]))


class WorkerProcess:
    """One process of one stage. exits : how often it ended without having been killed by us."""

    def __init__(self, stage: str, config: Config, log: Path) -> None:
        self.stage = stage
        self.exits: list[int] = []
        self._config = config
        self._log = log
        self._killed = False
        self._stopping = False
        self._process: Any = None
        self._port = 0

    async def keep_running(self) -> None:
        while not self._stopping:
            self._port, self._killed = _free_port(), False
            arguments = (self._config, self.stage, self._log, self._port)
            self._process = _processes.Process(target=run, args=arguments)
            self._process.start()
            await self._ended()
            if not self._killed and not self._stopping:
                self.exits.append(self._process.exitcode)

    async def _ended(self) -> int:
        while self._process.exitcode is None:  # noqa: ASYNC110 processes set no event
            await asyncio.sleep(POLL_S)
        code: int = self._process.exitcode
        return code

    def send(self, number: signal.Signals) -> None:
        self._killed = self._killed or number == signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def ready(self, within_s: float = READY_S) -> None:
        """Until /ready answers 200."""
        deadline = asyncio.get_running_loop().time() + within_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(f"http://127.0.0.1:{self._port}/ready") as answer:
                        if answer.status == 200:
                            return
                assert asyncio.get_running_loop().time() < deadline, f"not ready:\n{self.words()}"
                await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """SIGTERM, then the exit code."""
        self._stopping = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._ended(), 40)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self._ended()

    def words(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]


@contextlib.asynccontextmanager
async def workers(
    config: Config, fitted: Calibrated, folder: Path, counts: dict[str, int]
) -> AsyncIterator[list[WorkerProcess]]:
    """`counts[stage]` processes of each stage, ready; all are ended at the end, whatever happens."""
    secrets = config.secrets.model_copy(update={"directory": fitted.folder / "secrets"})
    own = config.model_copy(update={"artefacts": fitted.folder, "secrets": secrets})
    running = [
        WorkerProcess(stage, own, folder / f"{stage}-{number}.log")
        for stage, count in counts.items()
        for number in range(count)
    ]
    tasks = [asyncio.create_task(worker.keep_running()) for worker in running]
    try:
        await asyncio.sleep(0.1)
        await asyncio.gather(*(worker.ready() for worker in running))
        yield running
    finally:
        await asyncio.gather(*(worker.stop() for worker in running))
        for task in tasks:
            task.cancel()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
