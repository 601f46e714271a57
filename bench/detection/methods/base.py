"""What a method is given, and what it gives back: a suspicion after each row of a log, higher = more suspicious.

Rows of a log are sorted by client and time; a method starts every client anew and looks at nobody else's rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.detection.log import Log
from models.kernels.jit import making_kernel
from models.rows import F32, F64, I64, U64

REFERENCE_ROWS = 20_000
ROWS_OF_ONE_CLIENT = 20


class Units(NamedTuple):
    """Standard units, and which fields are categories, whose distance is 1 if they differ; all (d,)."""

    centre: F64
    scale: F64
    categorical: NDArray[np.bool_]
    codes: I64  # number of categories, 0 for numbers


class View(NamedTuple):
    """A log as methods read it. repeat : the client has sent this very input before."""

    log: Log
    x: F32  # (n, d) standard units; categories as codes
    exact: U64  # (n,) hash of the input
    repeat: NDArray[np.bool_]  # (n,)
    units: Units


@dataclass(frozen=True)
class Method:
    """A detector to compare with. score : (view, reference rows of ordinary clients) -> (n,) suspicion after each row.

    published : suspicion above which its authors alarm, by the name they give that setting.
    state_bytes : what a client of so many distinct rows of d fields costs.  slow : judged on a part of the clients.
    """

    name: str
    source: str
    parameters: str
    score: Callable[[View, View], F64]
    state_bytes: Callable[[I64, int], F64]
    published: Mapping[str, float] = field(default_factory=dict)
    slow: bool = False


def fit_units(log: Log, categorical: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Units:
    """Standard units of ordinary clients' rows, so that wide fields do not drown the others."""
    x = log.inputs[rows]
    scale = np.nanstd(x, axis=0)
    codes = np.where(categorical, np.nanmax(log.inputs, axis=0) + 1, 0).astype(np.int64)
    return Units(np.nanmean(x, axis=0), np.where(scale > 0, scale, 1.0), categorical, codes)


def view(log: Log, units: Units) -> View:
    """Blanks become the mean of a number, and a category of their own."""
    x = np.where(units.categorical, log.inputs, (log.inputs - units.centre) / units.scale).astype(np.float32)
    x[np.isnan(x)] = 0.0
    x[np.isnan(log.inputs) & units.categorical] = -1.0
    exact = _hashes(log.inputs)
    return View(log, x, exact, _repeats(exact, log.client), units)


def indicators(at: View) -> F32:
    """(n, wider) the same with 0 and sqrt(1/2) for categories, so that their Euclidean distance is 1."""
    units = at.units
    parts = [at.x[:, ~units.categorical]]
    for j in np.flatnonzero(units.categorical):
        parts.append((at.x[:, j, None] == np.arange(units.codes[j])).astype(np.float32) * np.float32(0.5**0.5))
    return np.ascontiguousarray(np.hstack(parts), np.float32)


def reference(log: Log, units: Units, chosen: NDArray[np.bool_]) -> View:
    """Distinct rows of the chosen clients, few of each, for methods that learn what ordinary inputs look like."""
    full = view(log, units)
    place = np.arange(log.rows) - log.starts[log.client]
    rows = np.flatnonzero(chosen[log.client] & ~full.repeat & (place < ROWS_OF_ONE_CLIENT))
    rows = np.random.default_rng(0).permutation(rows)[:REFERENCE_ROWS]
    return full._replace(x=full.x[rows], exact=full.exact[rows], repeat=full.repeat[rows])


def rolling_sum(score: F64, at: View, length: int) -> F64:
    """Sum over the client's last `length` distinct rows: for methods that judge one input at a time."""
    out = np.zeros(len(score))
    _rolling_sum(score, at.log.starts, at.repeat, length, out)
    return out


@making_kernel
def _rolling_sum(score: F64, starts: I64, repeat: NDArray[np.bool_], length: int, out: F64) -> None:
    last = np.zeros(length)
    for c in range(len(starts) - 1):
        last[:] = 0.0
        seen = 0
        for i in range(starts[c], starts[c + 1]):
            if not repeat[i]:
                last[seen % length] = score[i]
                seen += 1
            out[i] = last.sum()


def _hashes(inputs: F64) -> U64:
    """FNV-1a over the bits of each row."""
    bits = np.ascontiguousarray(inputs + 0.0).view(np.uint64)  # -0.0 is 0.0
    found = np.full(len(inputs), 0xCBF29CE484222325, np.uint64)
    for column in bits.T:
        found = (found ^ column ^ (column >> np.uint64(32))) * np.uint64(0x100000001B3)
        found ^= found >> np.uint64(29)
    return found


def _repeats(exact: U64, client: I64) -> NDArray[np.bool_]:
    order = np.lexsort((np.arange(len(exact)), exact, client))
    again = np.zeros(len(exact), bool)
    again[order[1:]] = (np.diff(client[order]) == 0) & (exact[order][1:] == exact[order][:-1])
    return again


@making_kernel
def distance2(a: F32, b: F32, categorical: NDArray[np.bool_]) -> float:
    """Squared Euclidean distance; a category that differs counts 1."""
    total = 0.0
    for j in range(len(a)):
        if categorical[j]:
            if a[j] != b[j]:
                total += 1.0
        else:
            total += (a[j] - b[j]) ** 2
    return total
