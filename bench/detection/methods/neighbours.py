"""Methods that compare a client's inputs with its own earlier ones: stateful k-NN, Blacklight, PRADA.

All pass over exact repeats (their last suspicion stays): counted, a client that sends one input again and again reaches
the ceiling of each of these statistics, and the threshold with it. `blacklight repeats` shows that.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bench.detection.methods.base import Method, View, distance2
from models.kernels.jit import making_kernel
from models.rows import F32, F64, I64, U8, U64

BUFFER = 1_000
"""Distinct inputs remembered of a client; the papers set no bound, and no attack here sends more."""
QUANTUM = 0.5
"""Standard units to one of Blacklight's bins. The paper has 50 of 256 brightness levels: about as many bins a field."""
PRADA_ROWS_MIN = 100
RADIUS = 0.5


def knn(k: int, at: View, reference: View) -> F64:
    """Minus the mean distance to the k nearest of the client's last inputs; -inf before there are k."""
    found = np.full(len(at.x), -np.inf)
    _knn(at.x, at.log.starts, at.repeat, at.units.categorical, k, BUFFER, found)
    return found


def knn_count(radius: float, at: View, reference: View) -> F64:
    """How many of the client's last inputs lie within `radius` standard units."""
    found = np.zeros(len(at.x))
    _count_near(at.x, at.log.starts, at.repeat, at.units.categorical, radius**2, BUFFER, found)
    return found


def nearest(at: View) -> F64:
    """(n,) distance to the nearest of the client's last inputs; NaN for its first and for repeats."""
    found = np.full(len(at.x), -np.inf)
    _knn(at.x, at.log.starts, np.zeros_like(at.repeat), at.units.categorical, 1, BUFFER, found)
    return np.where(at.repeat | np.isinf(found), np.nan, -found)


def blacklight(window: int, repeats: bool, at: View, reference: View) -> F64:
    """Largest share of an input's window hashes that one earlier input of the client had too."""
    bins = np.where(at.units.categorical, at.x, np.floor(at.x / np.float32(QUANTUM))).astype(np.int64)
    hashes = np.sort(_windows(bins, window), axis=1)
    found = np.zeros(len(at.x))
    _overlap(hashes, at.log.starts, at.repeat & (not repeats), BUFFER, found)
    return found


def prada(at: View, reference: View) -> F64:
    """1 - W of Shapiro and Wilk over the client's minimal distances within the answer's class; 0 up to 100 of them."""
    found = np.zeros(len(at.x))
    label = (at.log.label != 0).astype(np.uint8)
    _prada(at.x, at.log.starts, at.repeat, at.units.categorical, label, BUFFER, _normal_scores(4 * BUFFER), found)
    return found


@making_kernel
def _knn(
    x: F32, starts: I64, skip: NDArray[np.bool_], categorical: NDArray[np.bool_], k: int, buffer: int, out: F64
) -> None:
    kept = np.zeros((buffer, x.shape[1]), np.float32)
    best = np.zeros(k)
    for c in range(len(starts) - 1):
        seen = 0
        for i in range(starts[c], starts[c + 1]):
            if skip[i]:
                if i > starts[c]:
                    out[i] = out[i - 1]
                continue
            best[:] = np.inf
            for j in range(min(seen, buffer)):
                d2 = distance2(x[i], kept[j], categorical)
                if d2 < best[k - 1]:
                    at = k - 1
                    while at > 0 and best[at - 1] > d2:
                        best[at] = best[at - 1]
                        at -= 1
                    best[at] = d2
            out[i] = -np.mean(np.sqrt(best))
            kept[seen % buffer] = x[i]
            seen += 1


@making_kernel
def _count_near(
    x: F32, starts: I64, skip: NDArray[np.bool_], categorical: NDArray[np.bool_], radius2: float, buffer: int, out: F64
) -> None:
    kept = np.zeros((buffer, x.shape[1]), np.float32)
    for c in range(len(starts) - 1):
        seen = 0
        for i in range(starts[c], starts[c + 1]):
            if skip[i]:
                if i > starts[c]:
                    out[i] = out[i - 1]
                continue
            for j in range(min(seen, buffer)):
                if distance2(x[i], kept[j], categorical) <= radius2:
                    out[i] += 1.0
            kept[seen % buffer] = x[i]
            seen += 1


def _windows(bins: I64, window: int) -> U64:
    """(n, d - window + 1) hashes of neighbouring fields' bins. The windows' places are not hashed, as in the paper."""
    n, d = bins.shape
    hashes = np.full((n, d - window + 1), 0x9E3779B97F4A7C15, np.uint64)
    for shift in range(window):
        hashes ^= bins[:, shift : shift + d - window + 1].astype(np.uint64)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(31)
    return hashes


@making_kernel
def _overlap(hashes: U64, starts: I64, skip: NDArray[np.bool_], buffer: int, out: F64) -> None:
    w = hashes.shape[1]
    kept = np.zeros((buffer, w), np.uint64)
    for c in range(len(starts) - 1):
        seen = 0
        for i in range(starts[c], starts[c + 1]):
            if skip[i]:
                if i > starts[c]:
                    out[i] = out[i - 1]
                continue
            most = 0
            for j in range(min(seen, buffer)):
                same, a, b = 0, 0, 0
                while a < w and b < w:
                    if hashes[i, a] == kept[j, b]:
                        same, a, b = same + 1, a + 1, b + 1
                    elif hashes[i, a] < kept[j, b]:
                        a += 1
                    else:
                        b += 1
                most = max(most, same)
            out[i] = most / w
            kept[seen % buffer] = hashes[i]
            seen += 1


def _normal_scores(longest: int) -> F64:
    """A table of the normal quantile, fine enough for expected order statistics: entry i is at (i + 1/2) / longest."""
    table: F64 = ndtri((np.arange(64 * longest) + 0.5) / (64 * longest))
    return table


@making_kernel
def shapiro(ordered: F64, table: F64) -> float:
    """W of n >= 12 sorted numbers; Royston (1995), AS R94. table : quantiles of the normal, evenly spaced."""
    n = len(ordered)
    m = np.empty(n)
    for i in range(n):
        m[i] = table[int((i + 0.625) / (n + 0.25) * len(table))]
    mm = np.sum(m * m)
    u = 1.0 / np.sqrt(n)
    last = m[n - 1] / np.sqrt(mm)
    a_n = last + u * (0.221157 + u * (-0.147981 + u * (-2.071190 + u * (4.434685 - 2.706056 * u))))
    second = m[n - 2] / np.sqrt(mm)
    a_m = second + u * (0.042981 + u * (-0.293762 + u * (-1.752461 + u * (5.682633 - 3.582633 * u))))
    rest = (mm - 2 * m[n - 1] ** 2 - 2 * m[n - 2] ** 2) / (1 - 2 * a_n**2 - 2 * a_m**2)
    mean, spread = np.mean(ordered), 0.0
    for i in range(n):
        spread += (ordered[i] - mean) ** 2
    if spread <= 0.0:
        return 0.0  # no spread at all: as far from a normal as can be
    b = a_n * (ordered[n - 1] - ordered[0]) + a_m * (ordered[n - 2] - ordered[1])
    for i in range(2, n - 2):
        b += m[i] / np.sqrt(rest) * ordered[i]
    return float(b * b / spread)


@making_kernel
def _prada(
    x: F32, starts: I64, skip: NDArray[np.bool_], categorical: NDArray[np.bool_], label: U8, buffer: int, table: F64,
    out: F64,
) -> None:  # fmt: skip
    """Juuti et al. (2019), section V: a growing set per class; every minimal distance counts for the test.

    A test costs O(n log n), so beyond 300 distances only every (n // 100)-th row is tested.
    """
    grown = np.zeros((2, buffer, x.shape[1]), np.float32)
    distances = np.zeros(4 * buffer)
    for c in range(len(starts) - 1):
        size, total, squares, limit = np.zeros(2, np.int64), np.zeros(2), np.zeros(2), np.zeros(2)
        n = 0
        for i in range(starts[c], starts[c + 1]):
            if i > starts[c]:
                out[i] = out[i - 1]
            if skip[i] or n == len(distances):
                continue
            k = label[i]
            least = 0.0
            if size[k] > 0:
                least = np.inf
                for j in range(size[k]):
                    least = min(least, distance2(x[i], grown[k, j], categorical))
                least = np.sqrt(least)
                distances[n] = least
                n += 1
            if (size[k] == 0 or least > limit[k]) and size[k] < buffer:
                grown[k, size[k]] = x[i]
                size[k] += 1
                total[k] += least
                squares[k] += least * least
                mean = total[k] / size[k]
                limit[k] = max(limit[k], mean - np.sqrt(max(0.0, squares[k] / size[k] - mean * mean)))
            if n > PRADA_ROWS_MIN and (n <= 300 or n % (n // 100) == 0):
                part = distances[:n]
                mean, width = np.mean(part), 3.0 * np.std(part)
                part = np.sort(part[np.abs(part - mean) <= width])
                out[i] = 1.0 - shapiro(part, table) if len(part) >= 12 else 0.0


def _buffer_bytes(item: int) -> Callable[[I64, int], F64]:
    """item : bytes of a remembered field."""

    def size(rows: I64, fields: int) -> F64:
        kept: F64 = 16.0 + item * fields * np.minimum(rows, BUFFER)
        return kept

    return size


_CHEN = "Chen, Carlini, Wagner 2020, sections 3-4"
_LI = "Li et al. 2022 (Blacklight), section 5"

METHODS = (
    *(
        Method(f"k-NN {k}", _CHEN, f"k {k}, last {BUFFER:,} inputs", partial(knn, k), _buffer_bytes(4))
        for k in (5, 10, 50)
    ),
    Method("k-NN count", _CHEN, f"inputs within {RADIUS} units", partial(knn_count, RADIUS), _buffer_bytes(4)),
    *(
        Method(
            f"blacklight {w}",
            _LI,
            f"window {w}, all d - {w} + 1 hashes, bins of {QUANTUM} units",
            partial(blacklight, w, False),
            _buffer_bytes(8),
            {"half": 0.5},
        )
        for w in (3, 4)
    ),
    Method(
        "blacklight repeats",
        _LI,
        "window 3; exact repeats are judged as in the paper",
        partial(blacklight, 3, True),
        _buffer_bytes(8),
        {"half": 0.5},
    ),
    Method(
        "PRADA",
        "Juuti et al. 2019, section V",
        f"more than {PRADA_ROWS_MIN} distances; 1 - W",
        prada,
        _buffer_bytes(4),
        {f"delta {delta}": 1 - delta for delta in (0.90, 0.95, 0.96)},
    ),
)
