"""One worker on Apache Kafka, from the gateways' log to throttle events: how much, and how soon.

A backlog is drained; then records come at a fixed rate, whatever the service does, and the time from each deciding
record to its throttle event is taken. What should have come is known from an offline fold of the same frames: events
that never came count as infinitely late. Broker, feeder and worker share the machine, so processor times stand beside
the rates.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.performance.common import Run, percentile, ratios, say, spread
from bench.performance.feeder import Decision, Fed, Feeding, Order, Watcher
from bench.performance.plain import plain, read
from bench.performance.traffic import fitted
from bench.performance.worker import Seen, Worker, WorkerError
from models.artefacts.store import load_artefacts
from streams import replay
from streams.config.config import Config
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.progress import Reporter
from streams.secrets.load import load_secrets

RAW_PARTITIONS = 4
PARTITIONS = 12
CLIENTS = 100_000
LOADS = (0.5, 0.75, 1.0)
"""Steady feeding, as shares of the rate at which the backlog was drained."""

AIMED_PER_S = 30_000
"""Half of this is fed as well, before the others: a load that does not move with what is drained."""

LOOK_S, WINDOW_S = 0.5, 2.5
STALLED_S = 60.0
AFTER_S = 5.0
"""How long events may still come after the last record was judged; then they count as lost."""

_names = itertools.count()


class Pipeline(NamedTuple):
    """Topics and a group of their own, for one worker."""

    config: Config
    raw_partitions: int

    def order(self, run: Run, records: int, rate: float, clients: int = CLIENTS) -> Order:
        topic = self.config.topics.raw[0]
        return Order(run.bootstrap, topic, self.raw_partitions, records, rate, clients, next(_names))

    def worker(self, run: Run) -> Worker:
        sections = self.config.model_dump(mode="json", include={"kafka": {"bootstrap", "group"}, "topics": True})
        return Worker(run, sections, fitted(run), f"{self.config.kafka.group}.worker-{next(_names)}")


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    records, seconds = run.size(1_000_000, 100_000), run.size(25, 8)
    pipeline = make(run, RAW_PARTITIONS, PARTITIONS)
    watcher = Watcher(run.bootstrap, pipeline.config.topics.throttle, PARTITIONS)
    backlog = Feeding(pipeline.order(run, records, math.inf)).result()
    with pipeline.worker(run) as worker:
        say("the worker drains a backlog")
        drained = drain(worker, records, reporter)
        watcher.start()
        loads, fed = [], []
        fixed = AIMED_PER_S / 2 / drained["records_per_s"]
        for load in (fixed, *LOADS[: 1 if run.quick else None]):
            rate = load * drained["records_per_s"]
            length = seconds if load <= LOADS[0] else seconds // 2
            say(f"steady feeding, {rate:,.0f} records/s")
            one, figures = feed_steadily(run, pipeline, worker, int(rate * length), rate, reporter)
            fed.append(one)
            loads.append({"load": load} | figures)
        resident = worker.resident_bytes()
    watcher.stop()
    say("what should have come, by an offline fold")
    expected = offline(run, pipeline, reporter)
    for one, figures in zip(fed, loads, strict=True):
        figures |= latencies(watcher.decisions, expected, one.begun, one.ended)
    count = min(40_000, records // RAW_PARTITIONS // 2)
    read_s = [asyncio.run(read(run, pipeline.config.topics.raw[0], count, plain)) for _ in range(3)]
    return {
        "raw_partitions": RAW_PARTITIONS,
        "partitions": PARTITIONS,
        "clients": CLIENTS,
        "backlog": drained | {"fed_per_s": backlog.rate},
        "of_plain": ratios([drained["records_per_s"]] * len(read_s), [count / one for one in read_s]),
        "steady": loads,
        "resident_bytes": resident,
        "events": {"expected": len(expected), "arrived": len({one.id for one in watcher.decisions} & expected.keys())},
    }


def make(run: Run, raw_partitions: int, partitions: int) -> Pipeline:
    """Topics of a worker's own."""
    name = f"{run.namespace}.{next(_names)}"
    own = ("requests", "judge_state", "link_state", "drift", "alerts", "throttle", "throttle_state", "dlq")
    named: dict[str, Any] = {topic: f"{name}.{topic}" for topic in own}
    config = Config(
        kafka={"bootstrap": run.bootstrap, "group": name},
        topics=named | {"raw": (f"{name}.raw",), "partitions": partitions},
    )
    asyncio.run(topics.create(config, raw_partitions))
    return Pipeline(config, raw_partitions)


def drain(worker: Worker, records: int, reporter: Reporter) -> dict[str, Any]:
    """From the last look before anything was judged until everything is. Raises WorkerError if nothing moves."""
    done = reporter.task("the worker drains a backlog", records)
    looks, moved = [worker.look()], time.monotonic()
    while looks[-1].rows < records:
        time.sleep(LOOK_S)
        looks.append(worker.look())
        if looks[-1].rows > looks[-2].rows:
            moved = looks[-1].at
            done(looks[-1].rows - looks[-2].rows)
        elif time.monotonic() - moved > STALLED_S:
            raise WorkerError(
                f"{looks[-1].rows:,} of {records:,} records were judged, and no more for {STALLED_S:.0f} s"
            )
    first = max((place for place, look in enumerate(looks) if look.rows == looks[0].rows), default=0)
    begun, ended = looks[first], looks[-1]
    judged = ended.rows - begun.rows
    return {
        "records": judged,
        "seconds": ended.at - begun.at,
        "records_per_s": judged / (ended.at - begun.at),
        "rows_a_frame": _rows_a_frame(begun, ended),
        "windows": spread(window_rates(looks[first:])),
        "us": _us(begun, ended),
    }


def window_rates(looks: Sequence[Seen], seconds: float = WINDOW_S) -> list[float]:
    """Records a second in windows of at least so long; what is left over belongs to the last one."""
    rates, start = [], looks[0]
    for look in looks[1:]:
        if look.at - start.at >= seconds and looks[-1].at - look.at >= seconds:
            rates.append((look.rows - start.rows) / (look.at - start.at))
            start = look
    return [*rates, (looks[-1].rows - start.rows) / (looks[-1].at - start.at)]


def _rows_a_frame(begun: Seen, ended: Seen) -> float:
    return (ended.rows - begun.rows) / max(1, ended.frames - begun.frames)


def _us(begun: Seen, ended: Seen) -> dict[str, float]:
    """Processor time for each record judged in between."""
    rows = max(1, ended.rows - begun.rows)
    return {
        "worker": 1e6 * (ended.cpu_s - begun.cpu_s) / rows,
        "broker": 1e6 * (ended.broker_s - begun.broker_s) / rows,
    }


def feed_steadily(
    run: Run,
    pipeline: Pipeline,
    worker: Worker,
    records: int,
    rate: float,
    reporter: Reporter,
    clients: int = CLIENTS,
) -> tuple[Fed, dict[str, Any]]:
    """Feed at a rate (records/s), whatever the service does; returns when all of it is judged, with rates and costs."""
    done = reporter.task(f"steady feeding, {rate:,.0f} records/s", records)
    feeding = Feeding(pipeline.order(run, records, rate, clients))
    begun = worker.look()
    last, at_end, ended_at = begun, begun, 0.0
    fed: Fed | None = None
    while fed is None or last.rows - begun.rows < records:
        time.sleep(LOOK_S)
        look = worker.look()
        done(look.rows - last.rows)
        last = look
        if look.rows == begun.rows:
            begun = look  # the feeder is still being started
        if fed is None and feeding.ended:
            fed, at_end, ended_at = feeding.result(), look, time.monotonic()
        if fed is not None and time.monotonic() - ended_at > STALLED_S:
            raise WorkerError(f"{last.rows - begun.rows:,} of {records:,} records were judged, and no more")
    time.sleep(AFTER_S)
    behind = records - (at_end.rows - begun.rows)
    figures = {
        "records": records,
        "fed_per_s": fed.rate,
        "behind": behind,
        "behind_s": behind / fed.rate,
        "rows_a_frame": _rows_a_frame(begun, last),
        "us": _us(begun, last) | {"feeder": 1e6 * fed.cpu_s / records},
    }
    return fed, figures


def latencies(
    decisions: Sequence[Decision], expected: dict[str, float], begun: float, ended: float
) -> dict[str, float]:
    """Of the events that records of a span of time should have caused, ms; an event that came twice counts once."""
    due = {name for name, issued in expected.items() if begun <= issued <= ended}
    first: dict[str, float] = {}
    for one in decisions:
        if one.id in due:
            late = 1000 * (one.arrived - one.issued)
            first[one.id] = min(late, first.get(one.id, math.inf))
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    missing = len(due) - len(first)
    found = {name: percentile(list(first.values()), share, missing) for name, share in shares.items()}
    return found | {"events": len(due), "lost": missing}


def offline(run: Run, pipeline: Pipeline, reporter: Reporter) -> dict[str, float]:
    """What an uninterrupted fold of the frames decides: id and time, s since 1970."""
    config, folder = pipeline.config, fitted(run)
    secrets = load_secrets(config, folder)
    artefacts = load_artefacts(folder, secrets.projection_seed)
    sources = open_sources([f"kafka://{run.bootstrap}/{config.topics.requests}"], config)
    found = replay.replay(replay.Plan(sources, config, artefacts, secrets, reporter=reporter)).events
    return {event.id: event.time_ms / 1000 for event in found if event.kind == "throttle"}
