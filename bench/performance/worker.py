"""A worker as operators start it, `probewatch run` in a process of its own, watched through its metrics."""

import contextlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from bench.performance.common import Run, cpu_s, resident_bytes

COMMAND = (sys.executable, "-m", "streams.cli")
NOBODY = -1
READY_S, STOP_S = 90.0, 40.0
POLL_S = 0.1
_SAMPLE = re.compile(r"^probewatch_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Seen(NamedTuple):
    """One look. at : monotonic s. rows, frames : judged so far. lag : fetched and not handled.

    cpu_s, broker_s : processor time so far of the worker and of the broker, nan if unknown.
    """

    at: float
    rows: int
    frames: int
    lag: int
    cpu_s: float
    broker_s: float


class WorkerError(RuntimeError):
    """The worker ended or did not get ready; with its last words."""


class Worker:
    """Use as a context: started, ready, and in the end asked to stop."""

    def __init__(self, run: Run, config: Mapping[str, Mapping[str, Any]], artefacts: Path, name: str) -> None:
        self._run, self._port = run, _free_port()
        self._log = run.folder / f"{name}.log"
        self._file = run.folder / f"{name}.toml"
        sections = {**config, "web": {"port": self._port}, "secrets": {"directory": str(artefacts / "secrets")}}
        self._file.write_text(_toml(artefacts, sections))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [*COMMAND, "run", "--config", str(self._file)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self._until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._get("ready")
                return
            self._alive()
            time.sleep(POLL_S)
        raise WorkerError(f"not ready within {READY_S:.0f} s: {self._words()}")

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise WorkerError(f"ended with exit code {self._process.returncode}: {self._words()}")

    def look(self) -> Seen:
        """Raises WorkerError if it has ended."""
        self._alive()
        assert self._process is not None
        judged, lag = {"rows_total": 0, "frames_total": 0}, 0.0
        for name, labels, value in _SAMPLE.findall(self._get("metrics")):
            if name in judged and labels == 'stage="judge"':
                judged[name] = int(float(value))
            lag += float(value) if name == "lag" else 0.0
        spent = cpu_s(self._process.pid, self._run.broker_pid or NOBODY)
        return Seen(time.monotonic(), judged["rows_total"], judged["frames_total"], int(lag), *spent)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        assert self._process is not None
        return resident_bytes(self._process.pid)

    def _get(self, page: str) -> str:
        with urllib.request.urlopen(f"{self.address}/{page}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def _words(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]


def _toml(artefacts: Path, sections: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"artefacts = {_literal(str(artefacts))}"]
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {_literal(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
