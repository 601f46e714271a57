"""`make bench`: rows per second of `sketch` and `judge` on one core, each beside a plain reader in the same run.

Everything is counted in processor time of this process, since the machine may be busy with other things. The broker is
the embedded one, or KAFKA_BOOTSTRAP. Results: a table, and out/bench/throughput.json.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import judge, sketch
from bench.fixtures import KINDS, calibrated
from streams.app import spare_collector

ROWS = int(os.environ.get("BENCH_ROWS", "40000"))
CLIENTS = (120, 10_000, 100_000)
OUT = Path("out/bench/throughput.json")


def main() -> None:
    calibrated()
    spare_collector()  # as the worker does; the plain reader profits too
    console = Console(width=None if os.isatty(1) else 140)
    with broker() as bootstrap, console.status("sketch"):
        sketched = [sketch.measure(kind, ROWS, bootstrap) for kind in KINDS]
    with console.status("judge"):
        judged = [judge.measure(clients, max(4 * clients, 200_000)) for clients in CLIENTS]
    plain = max(one.topic_plain for one in sketched)
    console.print(_sketch_table(sketched))
    console.print(_judge_table(judged, plain))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "sketch": [asdict(one) | {"share_of_plain": one.share} for one in sketched],
        "judge": [asdict(one) | {"ratio_to_plain": one.rows_per_s / plain} for one in judged],
    }
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print(f"written to {OUT}")


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Bootstrap servers of KAFKA_BOOTSTRAP, else of an embedded broker that ends with the context."""
    from streams.embedded import EmbeddedBroker

    if given := os.environ.get("KAFKA_BOOTSTRAP"):
        yield given
    else:
        with EmbeddedBroker() as broker:
            yield broker.bootstrap


def _sketch_table(sketched: list[sketch.Sketched]) -> Table:
    table = Table(
        "record", "bytes", "plain reader", "sketch", "of plain", "and sent", "frame B/row", title="sketch, rows/s"
    )
    for one in sketched:
        rates = (f"{one.topic_plain:,.0f}", f"{one.topic_sketch:,.0f}", f"{one.share:.0%}")
        sent = f"{one.topic_sketch_and_send:,.0f}"
        table.add_row(one.kind, f"{one.record_bytes:,}", *rates, sent, f"{one.frame_bytes_per_row:.0f}")
    return table


def _judge_table(judged: list[judge.Judged], plain: float) -> Table:
    table = Table(
        "clients", "rows", "rows/s", "of the plain reader", "of it decoding", "B/client", "us/event", title="judge"
    )
    for one in judged:
        rates = (f"{one.rows_per_s:,.0f}", f"{one.rows_per_s / plain:.1f} x", f"{one.decode_share:.0%}")
        cost = (f"{one.bytes_per_client:,.0f}", f"{one.us_per_event:.0f}")
        table.add_row(f"{one.clients:,}", f"{one.rows:,}", *rates, *cost)
    return table


if __name__ == "__main__":
    main()
