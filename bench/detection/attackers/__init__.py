"""Attackers, really run against the trained model: raw query streams. bench.detection.disguise hides them in a log."""

import hashlib
import importlib.metadata
import multiprocessing
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
FEW = 4
"""Streams for which starting processes, five seconds, is not worth it."""

_SOURCES = ("attackers/*.py", "datasets.py", "people.py", "victim.py")


class Budget(NamedTuple):
    """victims : streams, each from another start row. rows_max : queries after which a stream is cut.

    rounded : the attacker rounds every query to the fields' grids before sending it.
    """

    victims: int
    rows_max: int
    rounded: bool = False


def run(name: str, dataset: Dataset, model: Model, rng: np.random.Generator, budget: Budget) -> Streams:
    """Run one family; from the cache under out/bench/cache where code, data and arguments are the same."""
    seed = int(rng.integers(2**31))
    path = CACHE / f"{name}-{_key(name, dataset, model, seed, budget)}.npz"
    if path.is_file():
        with np.load(path) as found:
            cuts = np.cumsum(found["lengths"])[:-1]
            return Streams(name, np.split(found["inputs"], cuts), found["success_at"], float(found["seconds"]))
    begin = time.perf_counter()
    made = _streams(name, dataset, model, seed, budget)
    seconds = time.perf_counter() - begin
    inputs = [rows for rows, _ in made]
    success_at = np.array([at for _, at in made], np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(rows) for rows in inputs])
    np.savez(path, inputs=np.concatenate(inputs), lengths=lengths, success_at=success_at, seconds=seconds)
    return Streams(name, inputs, success_at, seconds)


def _streams(name: str, dataset: Dataset, model: Model, seed: int, budget: Budget) -> list[tuple[F64, int]]:
    if budget.victims <= FEW:
        with threadpool_limits(1):
            return [
                families.stream(name, dataset, model, (seed, number), budget.rows_max, budget.rounded)
                for number in range(budget.victims)
            ]
    # Spawned, not forked: a forked child of a process that used OpenMP hangs in its first parallel region.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _begin, (name, dataset, model, seed, budget)) as pool:
        results = pool.map(_one, range(budget.victims), chunksize=4)
        return list(track(results, f"{name} on {dataset.name}", budget.victims, transient=True))


_task: tuple[str, Dataset, Model, int, Budget]


def _begin(name: str, dataset: Dataset, model: Model, seed: int, budget: Budget) -> None:
    global _task
    threadpool_limits(1)
    _task = name, dataset, model, seed, budget


def _one(number: int) -> tuple[F64, int]:
    name, dataset, model, seed, budget = _task
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
