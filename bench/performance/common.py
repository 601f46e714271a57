"""What parts of the benchmark share: the run, repetitions and their spread, processor time, percentiles."""

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.fixtures import WIDTHS, Kind

PROC = Path("/proc")


class Run(NamedTuple):
    """One run of the benchmark. broker_pid : of a broker that we started, 0 for another. quick : small sizes.

    folder : for artefacts and files, gone afterwards. namespace : first part of the names of all its topics and groups.
    """

    bootstrap: str
    broker: str
    broker_pid: int
    folder: Path
    namespace: str
    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def widths_of(run: Run) -> tuple[Kind, ...]:
    """Inputs whose widths are compared."""
    return WIDTHS[::3] if run.quick else WIDTHS


class Spread(NamedTuple):
    """Median, least and largest of `of` repetitions."""

    median: float
    low: float
    high: float
    of: int


def spread(values: Iterable[float]) -> dict[str, float]:
    """For JSON. Raises ValueError if there is none."""
    found = sorted(values)
    if not found:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(found), found[0], found[-1], len(found))._asdict()


def ratios(ours: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    """Spread of the ratio of rates inside each round: what disturbs a machine for seconds disturbs both."""
    return spread(mine / theirs for mine, theirs in zip(ours, plain, strict=True))


def in_turn(
    tasks: Mapping[str, Callable[[], float]], rounds: int, done: Callable[[int], None]
) -> dict[str, list[float]]:
    """What each task returned in each round. The order is turned round every time, so that none always comes first."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name in list(tasks)[:: -1 if number % 2 else 1]:
            found[name].append(tasks[name]())
            done(1)
    return found


def percentile(values: Sequence[float], share: float, missing: int = 0) -> float:
    """Nearest rank of `values` and of `missing` ones that never came, which count as infinite; nan for none at all."""
    count = len(values) + missing
    if not count:
        return math.nan
    rank = max(1, math.ceil(share * count))
    return sorted(values)[rank - 1] if rank <= len(values) else math.inf


def cpu_s(*pids: int) -> list[float]:
    """Processor time so far of each process with all its threads, its children that ended, and those that live.

    nan where /proc is missing or the process is gone.
    """
    known = _processes()
    found = []
    for pid in pids:
        ours, spent = [pid], 0.0 if pid in known else math.nan
        for one in ours:  # grows as descendants are found
            spent += known[one].cpu_s if one in known else 0.0
            ours += [child for child, process in known.items() if process.parent == one]
        found.append(spent)
    return found


def children(pid: int) -> set[int]:
    """Living children; none where /proc is missing."""
    return {child for child, process in _processes().items() if process.parent == pid}


class _Process(NamedTuple):
    parent: int
    cpu_s: float


def _processes() -> dict[int, _Process]:
    found = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold spaces; behind it come state, parent, … and as 12th to 15th the times of the
            # process and of its children that ended.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # gone meanwhile
        spent = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        found[int(path.parent.name)] = _Process(int(fields[1]), spent)
    return found


def resident_bytes(pid: int) -> int:
    """The most memory that a process ever had resident; 0 where /proc is missing."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def say(text: str) -> None:
    """To people who look at a pipe or a file; on a terminal there are bars."""
    if not sys.stderr.isatty():
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
