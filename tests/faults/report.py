"""The table of faults: in the terminal, as JSON, and between the markers of docs/reliability.md."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.registry import REGISTRY
from tests.faults.run import Done, Plan

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEADER = ("fault", "nodes", "times", "lost", "doubled", "repeated", "settled after, s")

INTRODUCTION = """## Faults

`make test-faults` injects every fault three times, the slowest once, in twelve seeded runs on Apache Kafka 4.1, a third
of them on three nodes.

- A run has two workers each of `sketch`, `judge` and `link`, restarted as a supervisor would, sessions of 3 s, and 300
  rows a second.
- After each fault, everything sent must be processed and committed.
- At the end, events are compared by id and byte with one uninterrupted fold of the same records, and every row must be
  in `requests`.
- Where the raw topic was re-created, the history is all of the new topic and what had been read of the old one: up to
  the last row of each partition that `sketch` had written.

| column | meaning |
|---|---|
| lost | events or rows that are missing |
| doubled | events nobody expects, or other bytes under a known id |
| repeated | the same bytes under the same id once more, which is allowed after a crash |
| settled after | median time from the beginning of the fault until everything sent meanwhile was committed |
"""

Record = Mapping[str, Any]


def record(done: Done) -> Record:
    """One run as JSON."""
    verdict = done.verdict
    strikes = [
        {"fault": s.fault.name, "rows": s.rows, "seconds": round(s.seconds, 1), "settled_s": round(s.settled_s, 1)}
        | blame._asdict()
        for s, blame in zip(done.strikes, verdict.blames, strict=True)
    ]
    figures = {name: getattr(verdict, name) for name in ("good", "rows", "events", "resent", "ends", "left_badly")}
    plan = {"seed": done.plan.seed, "nodes": done.plan.nodes, "seconds": round(done.seconds)}
    return plan | figures | {"strikes": strikes}


def failure(plan: Plan, error: Exception) -> Record:
    """A run that did not get to its end."""
    figures = dict.fromkeys(("rows", "events", "resent", "ends", "seconds"), 0)
    return {"seed": plan.seed, "nodes": plan.nodes, "good": False, "failed": str(error), "strikes": []} | figures


def write(records: Sequence[Record], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in records:
        path = folder / f"run-{entry['seed']}.json"
        path.write_text(json.dumps(entry, indent=2) + "\n")


def read(folder: Path) -> list[Record]:
    found = [json.loads(path.read_text()) for path in folder.glob("run-*.json")]
    return sorted(found, key=lambda entry: int(entry["seed"]))


def show(records: Sequence[Record], console: Console) -> None:
    console.print(summary(records))
    table = Table(*HEADER)
    for line in lines(records):
        table.add_row(*line)
    console.print(table)


def document(records: Sequence[Record]) -> None:
    """Put the table into its page."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *lines(records)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    PAGE.write_text(f"{before}{BEGIN}\n{INTRODUCTION}\n{summary(records)}\n\n{table}\n{END}{after}")


def summary(records: Sequence[Record]) -> str:
    seeds = ", ".join(str(entry["seed"]) for entry in records)
    rows, events = sum(entry["rows"] for entry in records), sum(entry["events"] for entry in records)
    strikes_of_all = [strike for entry in records for strike in entry["strikes"]]
    exits, watched = sum(len(s["exits"]) for s in strikes_of_all), sum(s["watched"] for s in strikes_of_all)
    failed = [str(entry["seed"]) for entry in records if "failed" in entry]
    broken = f" Aborted: seeds {', '.join(failed)}." if failed else ""
    return (
        f"{len(strikes_of_all)} faults in {len(records)} runs (seeds {seeds}), {rows:,} rows, {events:,} events;"
        f" workers ended by their watchdog because Faust or its client hung: {watched};"
        f" workers ended for an unplanned reason: {exits}.{broken}"
    )


def lines(records: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    """One for each fault that struck, in the order of the registry, and the sum."""
    strikes = [strike | {"nodes": entry["nodes"]} for entry in records for strike in entry["strikes"]]
    for fault in REGISTRY:
        if own := [strike for strike in strikes if strike["fault"] == fault.name]:
            yield _line(fault.name, own)
    yield _line("**all**", strikes)


def _line(name: str, strikes: Sequence[Record]) -> tuple[str, ...]:
    nodes = ", ".join(str(size) for size in sorted({strike["nodes"] for strike in strikes}))
    lost = sum(strike["lost"] + strike["rows_lost"] for strike in strikes)
    settled = sorted(strike["settled_s"] for strike in strikes)
    sums = [sum(strike[kind] for strike in strikes) for kind in ("doubled", "repeated")]
    return name, nodes, str(len(strikes)), str(lost), *map(str, sums), f"{settled[len(settled) // 2]:.0f}"
