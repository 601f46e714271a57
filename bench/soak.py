"""`make soak`: half an hour of even traffic while workers come and go. Does memory stay flat, does lag stay small?

Two workers stay, a third joins and leaves every other minute, so every minute partitions change hands. A bounded set of
clients sends at a fixed rate, and after the warm-up every record of a client is as full as it gets: what grows, leaks.

Slopes are ordinary least squares over medians of windows of one join and one leave, each worker about its own mean. The
interval is Student's at 95 %; medians of whole windows, since samples a second apart say the same thing twice.
"""

import json
import multiprocessing
import os
import re
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import confluent_kafka
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy import stats

from bench.performance.common import Run, say
from bench.performance.service import Pipeline, make
from bench.performance.traffic import Traffic
from bench.performance.worker import Worker, WorkerError
from tests.kafka_broker import apache_kafka

STAY, RAW_PARTITIONS, PARTITIONS = 2, 4, 12
CHANGE_S = 120.0
"""From one joining to the next."""

LOOK_S = 2.0
WARM_UP = 1 / 3
"""Share of the time that slopes leave out."""

WINDOWS_MIN = 6
GROWTH_MB_A_MINUTE = 0.25
LAG_S = 10.0
"""Records worth so many seconds of traffic may wait, at the end as at the beginning."""

OUT = Path("out/soak")
PAGE = Path("docs/reliability.md")
MARKS = "<!-- soak: begin -->", "<!-- soak: end -->"
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


class Plan(NamedTuple):
    """rate : records/s."""

    minutes: float
    rate: float
    clients: int

    @property
    def change_s(self) -> float:
        """Short soaks change more often, or no window would hold a whole change."""
        return min(CHANGE_S, 60 * self.minutes * (1 - WARM_UP) / WINDOWS_MIN)


class Look(NamedTuple):
    """at_s : since the beginning. resident_mb : by worker that stays. waiting : records that are not handled."""

    at_s: float
    resident_mb: list[float]
    waiting: int


class Slope(NamedTuple):
    """Per minute, with a 95 % interval."""

    value: float
    low: float
    high: float


@app.command()
def main(
    minutes: Annotated[float, typer.Option(envvar="SOAK_MINUTES", min=1)] = 30.0,
    rate: Annotated[float, typer.Option(envvar="SOAK_RATE", min=1, help="Records a second.")] = 5_000.0,
    clients: Annotated[int, typer.Option(envvar="SOAK_CLIENTS", min=1, help="Who sends them, in turn.")] = 10_000,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the table into docs/reliability.md.")] = False,
) -> None:
    """Soak on an Apache Kafka of its own. Writes out/soak/soak.json; exit code 1 unless the verdict is good."""
    plan = Plan(minutes, rate, clients)
    folder = (OUT / "run").absolute()  # what workers said stays, for whoever asks why one ended
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with apache_kafka() as bootstrap:
        run = Run(bootstrap, "Apache Kafka", 0, folder, f"soak-{int(time.time())}", quick=False)
        result = soak(run, make(run, RAW_PARTITIONS, PARTITIONS), plan)
    (OUT / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    _show(result)
    if write_docs:
        _document(result)
    raise typer.Exit(0 if result["good"] else 1)


def soak(run: Run, pipeline: Pipeline, plan: Plan) -> dict[str, Any]:
    with ExitStack() as stack:
        say("two workers start")
        workers = [stack.enter_context(pipeline.worker(run)) for _ in range(STAY)]
        looks: list[Look] = []
        begun = time.monotonic()
        stack.enter_context(_feeding(run, pipeline, plan))
        failed = stack.enter_context(_looking(workers, looks, begun))
        changes = 0
        while (left := begun + 60 * plan.minutes - time.monotonic()) > 0:
            with pipeline.worker(run):
                say(f"a third has joined, {left:.0f} s to go")
                changes += 1
                failed.wait(min(plan.change_s / 2, max(0.0, begun + 60 * plan.minutes - time.monotonic())))
            if failed.wait(min(plan.change_s / 2, max(0.0, begun + 60 * plan.minutes - time.monotonic()))):
                break
    return plan._asdict() | {"changes": 2 * changes} | judged(looks, plan)


def judged(looks: Sequence[Look], plan: Plan) -> dict[str, Any]:
    """Slopes after the warm-up, and what to think of them."""
    warm = [look for look in looks if look.at_s > WARM_UP * 60 * plan.minutes]
    by_worker = [[look.resident_mb[number] for look in warm] for number in range(STAY)]
    times = [look.at_s / 60 for look in warm]
    memory = slope(times, by_worker, plan.change_s / 60)
    lag = slope(times, [[float(look.waiting) for look in warm]], plan.change_s / 60)
    waiting = sorted(look.waiting for look in warm)
    flat = memory.low <= 0 or memory.high < GROWTH_MB_A_MINUTE
    short = lag.low <= 0 and statistics.median(waiting[-len(waiting) // 2 :]) < LAG_S * plan.rate
    return {
        "memory_mb_a_minute": memory._asdict(),
        "resident_mb": {"begin": [part[0] for part in by_worker], "end": [part[-1] for part in by_worker]},
        "waiting_a_minute": lag._asdict(),
        "waiting": {"median": statistics.median(waiting), "most": waiting[-1]},
        "flat": flat,
        "lag_does_not_grow": short,
        "good": flat and short,
        "looks": [look._asdict() for look in looks],
    }


def slope(times: Sequence[float], series: Sequence[Sequence[float]], window: float) -> Slope:
    """Ordinary least squares over medians of windows; several series share the slope, each has its own mean.

    times, window : minutes. Raises ValueError with fewer than three windows.
    """
    number = ((np.array(times) - times[0]) / window).astype(int)
    whole = [n for n in range(number.max() + 1) if (number == n).sum() >= 0.5 * np.median(np.bincount(number))]
    if len(whole) < 3:
        raise ValueError("three windows at least")
    x = np.array([np.median(np.array(times)[number == n]) for n in whole])
    y = np.array([[np.median(np.array(one)[number == n]) for n in whole] for one in series])
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    spread = len(series) * (x @ x)
    value = float((y @ x).sum() / spread)
    free = y.size - len(series) - 1
    error = float(np.sqrt(((y - value * x) ** 2).sum() / free / spread) * stats.t.ppf(0.975, free))
    return Slope(value, value - error, value + error)


@contextmanager
def _looking(workers: Sequence[Worker], looks: list[Look], begun: float) -> Iterator[threading.Event]:
    """A thread fills `looks`. If it finds a worker gone, the event that is given is set, and the context raises."""
    ended, failed, failures = threading.Event(), threading.Event(), []

    def look() -> None:
        try:
            while not ended.wait(LOOK_S):
                seen = [worker.look() for worker in workers]
                memory = [_resident_mb(worker.pid) for worker in workers]
                looks.append(Look(time.monotonic() - begun, memory, sum(one.lag for one in seen)))
        except (WorkerError, OSError) as error:
            failures.append(error)
            failed.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield failed
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def _resident_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def _feeding(run: Run, pipeline: Pipeline, plan: Plan) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    arguments = (run.bootstrap, pipeline.config.topics.raw[0], plan)
    process = context.Process(target=_feed, args=arguments, daemon=True)
    process.start()
    try:
        yield
        if not process.is_alive():
            raise RuntimeError(f"the feeder ended with exit code {process.exitcode}")
    finally:
        process.terminate()
        process.join()


def _feed(bootstrap: str, topic: str, plan: Plan) -> None:
    """The same clients again and again: nobody new comes, whoever probes."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all"})
    traffic = Traffic(plan.clients, seed=1, probing=False)
    begun, sent = time.time(), 0
    while True:
        due = int((time.time() - begun) * plan.rate)
        while sent < due:
            owner, value = traffic.next(time.time())
            producer.produce(topic, value, partition=owner % RAW_PARTITIONS)
            sent += 1
        producer.poll(0.005)


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory, waiting = result["memory_mb_a_minute"], result["waiting_a_minute"]
    begin, end = (" and ".join(f"{one:.0f}" for one in result["resident_mb"][name]) for name in ("begin", "end"))
    yield "traffic", f"{result['minutes']:g} min, {result['rate']:,.0f} records/s of {result['clients']:,} clients"
    yield "workers that joined or left", str(result["changes"])
    yield "resident, two workers, after warm-up and at the end", f"{begin} MB, {end} MB"
    yield "growth, 95 % interval", f"{memory['value']:+.2f} [{memory['low']:+.2f}, {memory['high']:+.2f}] MB/min"
    yield "records waiting, median and most", f"{result['waiting']['median']:,.0f}, {result['waiting']['most']:,}"
    yield "growth of those", f"{waiting['value']:+.1f} [{waiting['low']:+.1f}, {waiting['high']:+.1f}] a minute"
    words = {True: "yes", False: "NO"}
    yield "memory flat, lag not growing", f"{words[result['flat']]}, {words[result['lag_does_not_grow']]}"


def _show(result: Mapping[str, Any]) -> None:
    table = Table(show_header=False)
    for row in _rows(result):
        table.add_row(*row)
    Console(width=None if os.isatty(1) else 120).print(table)


def _document(result: Mapping[str, Any]) -> None:
    begin, end = MARKS
    lines = ["| soak, `make soak` | |", "|---|---|", *(f"| {name} | {value} |" for name, value in _rows(result))]
    head, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    app()
