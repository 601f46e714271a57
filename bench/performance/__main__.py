"""`make bench`: how fast each stage and the whole service are, beside plain readers and other people's methods.

Results: tables, out/bench/performance.json and out/bench/performance.html (plots, no network needed).
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from bench.performance import report
from bench.performance.common import Run, children
from bench.performance.parts import PARTS, measure
from bench.performance.plain import forget
from streams.kafka.embedded import EmbeddedBroker
from tests.kafka_broker import apache_kafka

OUT = Path("out/bench")
PAGE = Path("docs/performance.md")


def main(
    only: Annotated[str, typer.Option(help=f"Parts to run, with commas: {', '.join(PARTS)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: two minutes, and no figures to keep.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of tables.")] = False,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the tables into docs/performance.md.")] = False,
) -> None:
    """Measure, on KAFKA_BOOTSTRAP if that is set, else on an Apache Kafka of its own (Java 17 and Maven)."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    for name in names:
        if name not in PARTS:
            raise typer.BadParameter(f"{name}: no such part; one of {', '.join(PARTS)}")
    if write_docs and (quick or only):
        raise typer.BadParameter("--write-docs needs all parts in full")
    begun = time.monotonic()
    with broker() as found, tempfile.TemporaryDirectory(prefix="probewatch-bench-") as folder:
        run = Run(found.bootstrap, found.name, found.pid, Path(folder), f"bench-{int(time.time())}", quick)
        try:
            results = measure(run, names, kafka=found.kafka)
        finally:
            asyncio.run(forget(run))
    results |= {"seconds": time.monotonic() - begun, "command": "make bench"}
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / ("performance-part" if quick or only else "performance")
    report.write_json(results, path.with_suffix(".json"))
    report.write_page(results, path.with_suffix(".html"))
    if write_docs:
        report.write_docs(results, PAGE)
    if json:
        print(path.with_suffix(".json").read_text(encoding="utf-8"), end="")
    else:
        console = Console(width=None if os.isatty(1) else 140)
        report.print_tables(results, console)
        console.print(f"{results['seconds']:.0f} s; {path}.json and .html")


class Broker(NamedTuple):
    """name : for people. pid : of one that we started ourselves, else 0. kafka : Apache Kafka, or taken for it."""

    bootstrap: str
    name: str
    pid: int
    kafka: bool


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    if given := os.environ.get("KAFKA_BOOTSTRAP"):
        yield Broker(given, "a Kafka of one's own", 0, True)
    elif shutil.which("java") and shutil.which("mvn"):
        before = children(os.getpid())
        with apache_kafka() as bootstrap:
            started = children(os.getpid()) - before
            yield Broker(bootstrap, "Apache Kafka on the same cores", min(started, default=0), True)
    else:
        with EmbeddedBroker() as embedded:
            yield Broker(embedded.bootstrap, "the embedded broker", 0, False)


if __name__ == "__main__":
    typer.run(main)
