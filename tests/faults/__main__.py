"""`make test-faults`: many seeded runs, their table, exit code 1 if anything was lost or doubled."""

import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.faults import report
from tests.faults.registry import REGISTRY, named
from tests.faults.run import EACH, Plan, perform, plans
from tests.faults.workers import start_server
from tests.pipeline import Calibrated, calibrated

OUT = Path("out/faults")
RUNS = 12
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    runs: Annotated[int, typer.Option(envvar="FAULT_RUNS", help="Runs among which the faults are dealt.")] = RUNS,
    seed: Annotated[int, typer.Option(envvar="FAULT_SEED", help="Of the first run; the others follow.")] = 1,
    each: Annotated[int, typer.Option(envvar="FAULT_EACH", help="How often each fault strikes.")] = EACH,
    fault: Annotated[str, typer.Option(envvar="FAULT", help="Only this one, in every run.")] = "",
    nodes: Annotated[int, typer.Option(envvar="FAULT_NODES", help="With a single fault: 1 or 3.")] = 1,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the table into docs/reliability.md.")] = False,
) -> None:
    """Faults on purpose, on Apache Kafka, with live traffic. Writes out/faults/run-SEED.json."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the feed's, which outlives its brokers
    console = Console(highlight=False)
    if fault:
        chosen = [Plan(seed + number, nodes, [named(fault)] * each) for number in range(runs)]
    else:
        chosen = list(plans(seed, runs, each))
    for name, reason in [(fault.name, fault.impossible()) for fault in REGISTRY]:
        if reason:
            console.print(f"not possible here: {name}: {reason}")
    for plan in chosen:
        console.print(f"seed {plan.seed}, {plan.nodes} nodes: {', '.join(fault.name for fault in plan.faults)}")
    records = []
    with tempfile.TemporaryDirectory(prefix="probewatch-faults-") as folder:
        fitted_folder = Path(folder, "artefacts")
        fitted_folder.mkdir()
        fitted = calibrated(fitted_folder)
        start_server(fitted)
        for plan in chosen:
            console.print(f"seed {plan.seed} at {time.strftime('%H:%M:%S')}")
            records.append(_run(plan, fitted, Path(folder, str(plan.seed)), console))
            report.write(records[-1:], OUT)
    report.show(records, console)
    if write_docs:
        report.document(records)
    sys.stdout.flush()
    os._exit(0 if all(record["good"] for record in records) else 1)  # librdkafka's threads need no farewell


def _run(plan: Plan, fitted: Calibrated, folder: Path, console: Console) -> report.Record:
    try:
        done = asyncio.run(perform(plan, fitted, folder, console.print))
    except Exception as error:  # the other runs are still worth something
        console.print(f"  BROKEN OFF: {type(error).__name__}: {error}", markup=False)
        return report.failure(plan, error)
    console.print(f"  {'good' if done.verdict.good else 'BAD'} in {done.seconds:.0f} s: {done.verdict}", markup=False)
    return report.record(done)


if __name__ == "__main__":
    app()
