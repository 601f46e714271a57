"""Worker processes of one installation, started as a service manager would: whoever exits is started again."""

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numba

from models.warm import warm
from streams.config.config import Config, Web
from streams.worker.app import run_worker
from tests.pipeline import Calibrated

READY_S = 90.0
STOP_S = 40.0
RESTART_S = 0.5
"""As a service manager waits before it starts again what failed."""

POLL_S = 0.05
VOICE = "probewatch: "
KERNELS = "PROBEWATCH_KERNEL_CACHE"

_processes = multiprocessing.get_context("forkserver")
"""Processes of their own, forked from one that has imported everything: a start costs no seconds of processor time."""
_processes.set_forkserver_preload(["tests.faults.workers", "streams.worker.link"])


def run(config: Config, stage: str, folder: Path, port: int) -> None:
    """Main function of a worker process. folder : its temporary files and kernels; beside it a log of what it says."""
    with folder.with_suffix(".log").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["TMPDIR"] = str(folder)
    sys.exit(run_worker(config.model_copy(update={"web": Web(port=port)}), [stage]))


def kernels(fitted: Calibrated) -> Path:
    """Where workers of this test process keep what they compile: not where all others do, since it is wiped."""
    return fitted.folder.parent / f"kernels-{os.getpid()}"


def start_server(fitted: Calibrated) -> None:
    """Start what workers are forked from, if it does not run yet. They begin with the kernels of this process."""
    warm()
    compiled = Path(numba.config.CACHE_DIR)
    own = kernels(fitted) / compiled.parent.name / compiled.name
    if not own.exists():
        shutil.copytree(compiled, own)
    before = os.environ.get(KERNELS)
    os.environ[KERNELS] = str(kernels(fitted))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[KERNELS]
        if before is not None:
            os.environ[KERNELS] = before


class Exit(NamedTuple):
    """A worker that ended although nobody stopped or killed it. at_s : monotonic. said : its last line to operators."""

    worker: str
    at_s: float
    code: int
    said: str


class WorkerProcess:
    """One process of one stage; `keep_running` starts it again until `leave`.

    exits : how often it ended by itself, and why. config : what the next start will get.
    """

    def __init__(self, name: str, stage: str, config: Config, folder: Path) -> None:
        self.name = name
        self.stage = stage
        self.config = config
        self.exits: list[Exit] = []
        self._folder = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        self._expected = False
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._process: Any = None
        self._port = 0
        self._starts_at = 0

    async def keep_running(self) -> None:
        while True:
            await self._wanted.wait()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._port, self._expected, self._starts_at = _free_port(), False, self._log.stat().st_size
            self._process = _processes.Process(target=run, args=(self.config, self.stage, self._folder, self._port))
            self._process.start()
            code = await self._ended()
            if not self._expected:
                self.exits.append(Exit(self.name, time.monotonic(), code, self._said()))
                await asyncio.sleep(RESTART_S)

    async def _ended(self) -> int:
        while self._process is None or self._process.exitcode is None:  # noqa: ASYNC110 processes set no event
            await asyncio.sleep(POLL_S)
        code: int = self._process.exitcode
        return code

    @property
    def _log(self) -> Path:
        return self._folder.with_suffix(".log")

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        pid: int | None = None if self._process is None or self._process.exitcode is not None else self._process.pid
        return pid

    def send(self, number: signal.Signals) -> None:
        """SIGKILL counts as ended by us, and so does SIGTERM."""
        self._expected = self._expected or number in (signal.SIGKILL, signal.SIGTERM)
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self, *, again: bool = True) -> None:
        """SIGKILL; returns when it is gone. It starts again at once, or at `join`."""
        if not again:
            self._wanted.clear()
        process = self._process
        self.send(signal.SIGKILL)
        while process.exitcode is None:  # noqa: ASYNC110 processes set no event
            await asyncio.sleep(POLL_S)

    async def leave(self) -> int:
        """SIGTERM, then the exit code; it stays away until `join`."""
        self._wanted.clear()
        if self._process is None or self.pid is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._ended(), STOP_S)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self._ended()

    @property
    def address(self) -> str:
        """Of /ready and /metrics; another one after each start."""
        return f"http://127.0.0.1:{self._port}"

    def join(self) -> None:
        self._wanted.set()

    @property
    def wanted(self) -> bool:
        return self._wanted.is_set()

    async def is_ready(self, http: aiohttp.ClientSession) -> bool:
        """Whether /ready answers 200."""
        if self.pid is not None:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(f"{self.address}/ready") as answer:
                    return answer.status == 200
        return False

    async def ready(self, within_s: float = READY_S) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            deadline = time.monotonic() + within_s
            while not await self.is_ready(http):
                assert time.monotonic() < deadline, f"{self.name} is not ready in {within_s:.0f} s:\n{self.words()}"
                await asyncio.sleep(0.1)

    def _said(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._starts_at)
            lines = file.read().decode(errors="replace").splitlines()
        own = [line.removeprefix(VOICE) for line in lines if line.startswith(VOICE)]
        return (own or lines or [""])[-1]

    def words(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]


def installed(config: Config, fitted: Calibrated) -> Config:
    """With artefacts and secrets."""
    secrets = config.secrets.model_copy(update={"directory": fitted.folder / "secrets"})
    return config.model_copy(update={"artefacts": fitted.folder, "secrets": secrets})


@contextlib.asynccontextmanager
async def workers(
    config: Config, fitted: Calibrated, folder: Path, counts: Mapping[str, int]
) -> AsyncIterator[list[WorkerProcess]]:
    """`counts[stage]` processes of each stage, ready; all are ended at the end, whatever happens."""
    own = installed(config, fitted)
    running = [
        WorkerProcess(f"{stage}-{number}", stage, own, folder)
        for stage, members in counts.items()
        for number in range(members)
    ]
    tasks = [asyncio.create_task(worker.keep_running()) for worker in running]
    try:
        await asyncio.sleep(0.1)
        await all_ready(running)
        yield running
    finally:
        await asyncio.gather(*(worker.leave() for worker in running))
        for task in tasks:
            task.cancel()


async def all_ready(workers: list[WorkerProcess], within_s: float = READY_S) -> None:
    waits: list[Awaitable[None]] = [worker.ready(within_s) for worker in workers if worker.wanted]
    await asyncio.gather(*waits)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
