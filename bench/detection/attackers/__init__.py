"""Attackers, really run against the trained model: raw query streams. bench.detection.disguise hides them in a log."""

import hashlib
import importlib.metadata
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from bench.detection.attackers import families
from bench.detection.datasets import Dataset
from bench.detection.disguise import Disguise, Streams, disguise
from bench.detection.victim import Model
from models.rows import F64

__all__ = ("FAMILIES", "HELD_OUT", "Budget", "Disguise", "Streams", "disguise", "run")

FAMILIES = tuple(families.REGISTRY)
HELD_OUT = "sign-opt"
"""Only tried to run while anything was tuned; its figures are taken once, at the end."""

CACHE = Path("out/bench/cache/streams")
PROCESSES = 2
FIRST = 4
SERIAL_S = 30.0
"""Starting processes costs 5 to 15 s of imports: done only where the first streams foretell more work than this."""

_SOURCES = ("attackers/[a-z]*.py", "datasets.py", "people.py", "victim.py")


class Budget(NamedTuple):
    """victims : streams, each from another start row. rows_max : queries after which a stream is cut.

    rounded : the attacker rounds every query to the fields' grids before sending it.
    """

    victims: int
    rows_max: int
    rounded: bool = False


def run(
    name: str, dataset: Dataset, model: Model, rng: np.random.Generator, budget: Budget, *, processes: int = PROCESSES
) -> Streams:
    """Run one family; from the cache under out/bench/cache where code, data and arguments are the same.

    processes : 1 runs it in this one, for callers that run families side by side.
    """
    seed = int(rng.integers(2**31))
    path = _path(name, dataset, model, seed, budget)
    if path.is_file():
        with np.load(path) as found:
            cuts = np.cumsum(found["lengths"])[:-1]
            return Streams(name, np.split(found["inputs"], cuts), found["success_at"], float(found["seconds"]))
    begin = time.perf_counter()
    made = _streams(name, dataset, model, seed, budget, processes)
    seconds = time.perf_counter() - begin
    inputs = [rows for rows, _ in made]
    success_at = np.array([at for _, at in made], np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(rows) for rows in inputs])
    np.savez(path, inputs=np.concatenate(inputs), lengths=lengths, success_at=success_at, seconds=seconds)
    return Streams(name, inputs, success_at, seconds)


def is_cached(name: str, dataset: Dataset, model: Model, rng: np.random.Generator, budget: Budget) -> bool:
    """Whether `run` with the same arguments, the generator in the same state, need not attack anything."""
    return _path(name, dataset, model, int(rng.integers(2**31)), budget).is_file()


def _path(name: str, dataset: Dataset, model: Model, seed: int, budget: Budget) -> Path:
    return CACHE / f"{name}-{_key(name, dataset, model, seed, budget)}.npz"


def _streams(
    name: str, dataset: Dataset, model: Model, seed: int, budget: Budget, processes: int
) -> list[tuple[F64, int]]:
    _begin(name, dataset, model, seed, budget)
    begin = time.perf_counter()
    made = [_one(number) for number in range(min(FIRST, budget.victims))]
    rest = range(len(made), budget.victims)
    quiet = processes == 1 or not sys.stderr.isatty()
    title = f"{name} on {dataset.name}"
    if processes == 1 or len(rest) * (time.perf_counter() - begin) / FIRST < SERIAL_S:
        return made + [_one(number) for number in track(rest, title, transient=True, disable=quiet)]
    # Spawned, not forked: a forked child of a process that used OpenMP hangs in its first parallel region.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (name, dataset, model, seed, budget)) as pool:
        results = pool.map(_one, rest, chunksize=4)
        return made + list(track(results, title, len(rest), transient=True, disable=quiet))


_task: tuple[str, Dataset, Model, int, Budget]


def _begin(name: str, dataset: Dataset, model: Model, seed: int, budget: Budget) -> None:
    global _task
    _task = name, dataset, model, seed, budget


def _one(number: int) -> tuple[F64, int]:
    name, dataset, model, seed, budget = _task
    with threadpool_limits(1):
        return families.stream(name, dataset, model, (seed, number), budget.rows_max, budget.rounded)


def _key(name: str, dataset: Dataset, model: Model, seed: int, budget: Budget) -> str:
    made = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for pattern in _SOURCES:
        for source in sorted(folder.glob(pattern)):
            made.update(source.read_bytes())
    versions = [importlib.metadata.version(p) for p in ("adversarial-robustness-toolbox", "scikit-learn", "numpy")]
    made.update(model.forest.threshold.tobytes())
    made.update(repr((name, dataset.name, dataset.digest, seed, *budget, versions)).encode())
    return made.hexdigest()[:16]
