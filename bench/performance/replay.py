"""How many rows of an archive `probewatch replay` judges in a minute on one core, the command's start included.

The frames are what `sketch` makes of a log in batches as they are fetched behind it, for 12 partitions of `requests`;
ten rows a client. REPLAY_ROWS in the environment asks for another number of rows: `make bench-replay` for ten million,
with report.html.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.performance.common import Run, ratios, spread
from bench.performance.plain import FETCH_RECORDS, Plain
from bench.performance.traffic import BEGIN_S, Traffic, fitted
from bench.performance.worker import COMMAND
from models.artefacts.store import load_artefacts
from streams.config.config import Config
from streams.history.archive import Message, Writer, open_archive
from streams.progress import Advance, Reporter
from streams.secrets.load import load_secrets
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from streams.wire import frames

CLIENTS = 100_000
SLICE_ROWS = 2_000_000
"""Rows that are archived at a time, as by runs of `archive` one after another."""


def measure(run: Run, reporter: Reporter) -> dict[str, Any]:
    rows = int(os.environ.get("REPLAY_ROWS", run.size(1_000_000, 60_000)))
    large = rows > SLICE_ROWS
    rounds = 1 if large else run.size(3, 1)
    folder = fitted(run)
    archive = run.folder / "archive"
    messages = _archive(archive, folder, rows, reporter.task("frames to replay", rows))
    plain = Plain(run)
    done = reporter.task("replay", rounds)
    read, found = [], []
    for _ in range(rounds):
        read.append(plain.rate())
        found.append(_replay(archive, folder, run.folder / "replayed", report=large))
        if found[-1][1]["rows"] != rows:
            raise RuntimeError(f"{found[-1][1]['rows']:,} of {rows:,} rows were judged")
        done(1)
    rates = [rows / cpu_s for cpu_s, _ in found]
    return {
        "rows": rows,
        "report": large,
        "cpu_s": spread(cpu_s for cpu_s, _ in found),
        "frames": messages,
        "archive_bytes": open_archive(archive).size,
        "rows_a_minute": spread(60 * rate for rate in rates),
        "rows_a_minute_without_start": spread(60 * summary["rows"] / summary["seconds"] for _, summary in found),
        "events": found[-1][1]["alerts"],
        "of_plain": ratios(rates, read),
    }


def _archive(path: Path, folder: Path, rows: int, done: Advance) -> int:
    """Write the frames; how many."""
    config = Config()
    secrets = load_secrets(config, folder)
    artefacts = load_artefacts(folder, secrets.projection_seed)
    identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
    sketcher, traffic = Sketcher(artefacts, identity, config), Traffic(max(CLIENTS, rows // 10), seed=11)
    written = dict.fromkeys(range(config.topics.partitions), 0)
    for first in range(0, rows, SLICE_ROWS):
        waiting: dict[int, list[Message]] = {number: [] for number in written}
        for start in range(first, min(first + SLICE_ROWS, rows), FETCH_RECORDS):
            batch = [
                RawRecord(offset, traffic.record(BEGIN_S + offset / 20_000), None, (), -1)
                for offset in range(start, min(start + FETCH_RECORDS, first + SLICE_ROWS, rows))
            ]
            for frame in sketcher.frames("bench", 0, "0", batch, config.topics.partitions).frames:
                place = written[frame.partition] + len(waiting[frame.partition])
                waiting[frame.partition].append(Message(frame.partition, place, None, frames.encode(frame)))
            done(len(batch))
        with Writer(path, config.topics.requests) as archive:
            for number, messages in waiting.items():
                archive.begin(number, written[number])
                for message in messages:
                    archive.add(message)
                written[number] += len(messages)
    return sum(written.values())


def _replay(archive: Path, folder: Path, out: Path, *, report: bool) -> tuple[float, dict[str, Any]]:
    """Processor seconds of the command, and its summary."""
    command = [*COMMAND, "replay", str(archive), "--artefacts", str(folder), "--out", str(out)]
    command += [] if report else ["--no-report"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=_one_core)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, json.loads((out / "summary.json").read_text())


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
