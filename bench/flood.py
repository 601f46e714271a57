"""`make bench-flood`: how long do others wait for their decisions while somebody sends what is dear to read?

The same steady traffic twice through one worker: alone, and while batches of a dozen megabytes, which compression makes
small, arrive in one of its raw partitions. The kinds are those of `tests/message_family.py` that cost most and of which
nothing is judged. What is aimed at: the 99th percentile of others' decisions at most doubles.
"""

import itertools
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import confluent_kafka
import typer

from bench.performance import service
from bench.performance.common import Run, say
from bench.performance.feeder import Watcher
from bench.performance.service import PARTITIONS, RAW_PARTITIONS, Pipeline
from bench.performance.worker import Worker
from streams.progress import Silent
from tests.kafka_broker import apache_kafka
from tests.message_family import KINDS

FLOOD = ("zeros", "opening brackets", "empty objects", "brackets in pairs", "NDJSON of half objects", "bytes above 127")
MESSAGE_BYTES, MESSAGES = 1_000_000, 12
EVERY_S = 3.0
CLIENTS = 2_000
TIMES_MAX = 2.0
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    rate: Annotated[float, typer.Option(min=1, help="Records of others a second.")] = 2_000.0,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each of the two.")] = 30.0,
) -> None:
    """Measure on an Apache Kafka of its own. Prints JSON; exit code 1 if the aim is missed."""
    with apache_kafka() as bootstrap, tempfile.TemporaryDirectory() as folder:
        run = Run(bootstrap, "Apache Kafka", 0, Path(folder), f"flood-{int(time.time())}", quick=False)
        found = measure(run, rate, seconds)
    print(json.dumps(found, indent=1))
    raise typer.Exit(0 if found["p99_ratio"] <= TIMES_MAX else 1)


def measure(run: Run, rate: float, seconds: float) -> dict[str, Any]:
    pipeline = service.make(run, RAW_PARTITIONS, PARTITIONS)
    watcher = Watcher(run.bootstrap, pipeline.config.topics.throttle, PARTITIONS)
    found: dict[str, Any] = {"records_per_s": rate}
    spans = {}
    with pipeline.worker(run) as worker:
        watcher.start()
        for name in ("warm-up", "quiet", "flood"):
            say(f"steady feeding: {name}")
            with flooding(run, pipeline, worker, found) if name == "flood" else contextmanager(_nothing)():
                fed, steady = service.feed_steadily(
                    run, pipeline, worker, int(rate * seconds), rate, Silent(), clients=CLIENTS
                )
            spans[name] = fed
            found[name] = {"us": steady["us"], "behind_s": steady["behind_s"]}
    watcher.stop()
    expected = service.offline(run, pipeline, Silent())
    for name, fed in spans.items():
        found[name] |= service.latencies(watcher.decisions, expected, fed.begun, fed.ended)
    return found | {"p99_ratio": found["flood"]["p99_ms"] / found["quiet"]["p99_ms"]}


def _nothing() -> Iterator[None]:
    yield


@contextmanager
def flooding(run: Run, pipeline: Pipeline, worker: Worker, found: dict[str, Any]) -> Iterator[None]:
    """A batch every EVERY_S into partition 0; notes how many, and how long `/live` took at most."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": run.bootstrap, "compression.type": "zstd", "linger.ms": 200,
            "message.max.bytes": 2 * MESSAGES * MESSAGE_BYTES, "batch.size": 2 * MESSAGES * MESSAGE_BYTES,
        }
    )  # fmt: skip
    ended = threading.Event()
    noted = {"batches": 0, "live_ms_max": 0.0}

    def send() -> None:
        for name in itertools.cycle(FLOOD):
            value = KINDS[name](MESSAGE_BYTES)
            for _ in range(MESSAGES):
                producer.produce(pipeline.config.topics.raw[0], value, partition=0)
            producer.flush(30)
            noted["batches"] += 1
            if ended.wait(EVERY_S):
                return

    def ask() -> None:
        while not ended.wait(0.1):
            begun = time.monotonic()
            with urllib.request.urlopen(f"{worker.address}/live", timeout=60) as answer:
                answer.read()
            noted["live_ms_max"] = max(noted["live_ms_max"], 1000 * (time.monotonic() - begun))

    threads = [threading.Thread(target=target, daemon=True) for target in (send, ask)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()
    found |= noted


if __name__ == "__main__":
    app()
