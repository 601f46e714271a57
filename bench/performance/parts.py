"""All parts, and how each is run: in a process of its own, so that what one leaves behind is nothing to the next."""

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import fixtures
from bench.performance.common import Run, say, widths_of
from streams.progress import Bars
from streams.worker.warm import warm

PARTS = {
    "sketch": "sketch:measure",
    "reading": "reading:measure",
    "judge": "judge:measure",
    "memory": "judge:resident",
    "service": "service:measure",
    "replay": "replay:measure",
    "river": "rivals:measure",
    "widths": "growth:widths",
    "partitions": "growth:partitions",
}
"""By name: module and function, loaded only by the process that runs it."""

ON_KAFKA = ("service", "partitions")
"""What would say nothing on a broker that lives in memory."""


def measure(run: Run, names: Sequence[str], *, kafka: bool) -> dict[str, Any]:
    """kafka : whether the broker may stand for the real one."""
    results: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": run.quick,
        "machine": {
            "processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version(),
            "load_before": os.getloadavg()[0], "broker": run.broker,
        },
        "parts": {},
        "took_s": {},
        "left_out": {},
    }  # fmt: skip
    say("compiling and calibrating")
    warm()
    fitted = run.folder / "widths"
    fitted.mkdir()
    fixtures.fit(fitted, (*fixtures.KINDS, *(widths_of(run) if "widths" in names else ())))
    os.environ[fixtures.ARTEFACTS] = str(fitted)
    for name in names:
        if name in ON_KAFKA and not kafka:
            results["left_out"][name] = "needs Apache Kafka: Java 17 and Maven, or KAFKA_BOOTSTRAP"
            continue
        say(name)
        begun = time.monotonic()
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            own = run._replace(namespace=f"{run.namespace}.{name}")
            results["parts"][name] = process.submit(_part, name, own).result()
        results["took_s"][name] = time.monotonic() - begun
    return results


def _part(name: str, run: Run) -> dict[str, Any]:
    module, function = PARTS[name].split(":")
    with Bars() as bars:
        found: dict[str, Any] = getattr(import_module(f"bench.performance.{module}"), function)(run, bars)
    return found


def _processor() -> str:
    """Its name where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
