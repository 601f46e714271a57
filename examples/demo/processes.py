"""The demo's child processes: started in order, ended in reverse order, whatever happens."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

START_S = 60.0
STOP_S = 20.0


class ChildError(RuntimeError):
    """A child process failed. Says which, and the end of what it wrote."""


class Children:
    """Context manager over the processes of one demo. Logs go to files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._end(*self._running.pop())

    def start(self, name: str, module: str, *arguments: object) -> None:
        """Start `python -m module arguments`, in its own session: Ctrl-C ends the demo, which ends its children."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                _command(module, arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(),
            )
        self._running.append((name, process))

    def stop(self, name: str) -> None:
        """End one child and wait for it. Raises ChildError if it had already died."""
        self.check()
        entry = next(entry for entry in self._running if entry[0] == name)
        self._running.remove(entry)
        self._end(*entry)

    def check(self) -> None:
        """Raises ChildError if any child has died."""
        for name, process in self._running:
            if process.poll() is not None:
                raise ChildError(f"{name} ended with status {process.returncode}:\n{self._tail(name)}")

    async def wait_until_ready(self, url: str) -> None:
        """Until GET url answers 200. Raises ChildError when a child dies or START_S have passed."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient() as http:
                    if (await http.get(url, timeout=2)).status_code == 200:
                        return
            await asyncio.sleep(0.1)
        raise ChildError(f"{url} is not ready after {START_S:.0f} s:\n{self._tail(self._running[-1][0])}")

    async def run(self, name: str, module: str, *arguments: object) -> None:
        """Run to the end. Raises ChildError if it fails."""
        self.start(name, module, *arguments)
        entry = self._running[-1]
        await asyncio.to_thread(entry[1].wait)
        self._running.remove(entry)
        if entry[1].returncode:
            raise ChildError(f"{name} ended with status {entry[1].returncode}:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-3_000:]

    @staticmethod
    def _end(_: str, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(module: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def _environment() -> dict[str, str]:
    """One thread for each numerical library: the demo runs several processes on few cores."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
