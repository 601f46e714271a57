"""When requests come: real API clients' gaps where their traces are given, else distributions fitted to them.

The traces (422 clients of an LLM service, `servegen_traces.tar.xz`) give for each ten minutes of a client its rate and
the gamma or Weibull law of its gaps. Taken from them: how bursty clients are, and the time of day. Not taken: how
fast they are, since an LLM service's machines send 0.3 to 100 requests a second.
"""

import functools
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas

from bench.detection.datasets import FOLDER_VARIABLE
from bench.detection.log import BEGIN_MS, DAY_MS
from models.rows import F64, I64

TRACES_FILE = "servegen_traces.tar.xz"
WINDOW_S = 600
WINDOWS = 144
WINDOWS_PER_CLIENT = 100
_COLUMNS = ("begin_s", "rate", "deviation", "family", "shape", "scale")

FITTED_WEIBULL_SHARE = 0.28
FITTED_GAMMA = (-0.59, 1.26)
FITTED_WEIBULL = (-0.71, 0.54)
"""Mean and deviation of the logarithm of the shape over all traces; below 1 is burstier than Poisson."""
FITTED_SWING, FITTED_PEAK_HOUR = 0.35, 17.0

GAP_MS = 45_000.0
GAP_SPREAD = 1.2
"""Median gap of a session and the deviation of its logarithm: filling in a form again takes most of a minute."""
SPAN_MAX_MS = 0.9 * DAY_MS
STEADY_JITTER_MS = 500.0


class Arrivals(NamedTuple):
    """day : (WINDOWS,) probability of each ten minutes.

    shapes : (k,) of the laws of gaps. weibull : (k,) 1 for a Weibull law, 0 for a gamma law.
    """

    day: F64
    shapes: F64
    weibull: F64
    source: str


@functools.cache
def arrivals() -> Arrivals:
    """From the traces if PROBEWATCH_DATA names a folder with them, else fitted; `source` says which."""
    path = Path(os.environ.get(FOLDER_VARIABLE, "")) / TRACES_FILE
    return _traced(path) if path.is_file() else _fitted()


def _fitted() -> Arrivals:
    rng = np.random.default_rng(422)
    hours = (np.arange(WINDOWS) + 0.5) * 24 / WINDOWS
    day = 1 + FITTED_SWING * np.cos((hours - FITTED_PEAK_HOUR) * 2 * np.pi / 24)
    weibull = rng.random(10_000) < FITTED_WEIBULL_SHARE
    laws = np.array([FITTED_GAMMA, FITTED_WEIBULL])[weibull.astype(int)]
    shapes = np.exp(laws[:, 0] + laws[:, 1] * rng.standard_normal(len(laws)))
    return Arrivals(day / day.sum(), shapes, weibull.astype(float), "fitted gamma and Weibull gaps")


def _traced(path: Path) -> Arrivals:
    """Every client counts the same, however busy."""
    rng = np.random.default_rng(422)
    days, shapes, weibull = [], [], []
    with tarfile.open(path) as folder:
        for member in folder:
            file = folder.extractfile(member) if member.name.endswith("-trace.csv") else None
            if file is None:
                continue
            table = pandas.read_csv(file, header=None, names=_COLUMNS)
            window = (table["begin_s"].to_numpy() % 86_400 // WINDOW_S).astype(int)
            sums = np.bincount(window, table["rate"].to_numpy(), WINDOWS)
            rate = sums / np.maximum(np.bincount(window, minlength=WINDOWS), 1)
            laws = table[table["shape"] > 0]  # a window without requests has no law
            if rate.sum() == 0 or laws.empty:
                continue
            picked = laws.iloc[rng.integers(0, len(laws), WINDOWS_PER_CLIENT)]
            days.append(rate / rate.sum())
            shapes.append(picked["shape"].to_numpy())
            weibull.append((picked["family"] == "Weibull").to_numpy(float))
    source = f"{len(days)} API clients of {path.name}"
    return Arrivals(np.mean(days, axis=0), np.concatenate(shapes), np.concatenate(weibull), source)


def times(rng: np.random.Generator, counts: I64, days: I64, steady: np.ndarray | None = None) -> I64:
    """Milliseconds since 1970 of every request of b client-days, rising within each; shape (sum of counts,).

    counts, days : (b,) requests (at least one) and days since BEGIN_MS. steady : (b,) True for a machine that sends
    at a fixed pace all day. The same function serves attackers: when they ask gives nothing away.
    """
    law = arrivals()
    of = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    chosen = rng.integers(0, len(law.shapes), len(counts))
    shape, weibull = law.shapes[chosen][of], law.weibull[chosen][of] > 0
    gaps = np.where(weibull, rng.weibull(shape), rng.standard_gamma(shape) / shape)
    gaps[first] = 0.0
    passed = np.cumsum(gaps)
    passed -= passed[first][of]
    whole = passed[first + counts - 1]
    span = np.exp(np.log(GAP_MS) + GAP_SPREAD * rng.standard_normal(len(counts))) * (counts - 1)
    span = np.minimum(span, SPAN_MAX_MS * rng.uniform(0.5, 1.0, len(counts)))
    scale = span / np.maximum(whole, 1e-9)
    window = rng.choice(WINDOWS, len(counts), p=law.day)
    begin = np.minimum((window + rng.random(len(counts))) * WINDOW_S * 1_000, DAY_MS - 1 - span)
    time = begin[of] + passed * scale[of]
    if steady is not None and steady.any():
        place = np.arange(len(of)) - first[of]
        pace = (place + 0.5) * (DAY_MS / counts)[of] + rng.uniform(-STEADY_JITTER_MS, STEADY_JITTER_MS, len(of))
        time = np.where(steady[of], pace, time)
    inside: I64 = np.clip(np.rint(time), 0, DAY_MS - 1).astype(np.int64)
    return BEGIN_MS + days[of] * DAY_MS + inside
