"""How far a row stands from the population, and in which of its cells.

Each row for itself, in a fixed order of 32-bit sums. Four numbers are added at once, and to many sums side by side,
which is what a processor's vector unit wants: whitening and 64 distances take .2 us for 23 numbers, .45 us for 64.
"""

import math

import numpy as np

from models.kernels.jit import kernel, making_kernel, part
from models.rows import F32, F64, I16, I64, U32

BLOCK = 64
"""Numbers of `values` that are whitened together, as the encoder rotates them; the covariance between blocks is 0."""

LANES = 4
"""Matrices have a multiple of this many rows; those beyond the d-th are zeros."""


@making_kernel
def describe_rows(values: I16, centre: F64, factor: F32, cells: F32, novelty: F32, cell: U32) -> None:
    """Fill novelty and cell of n rows.

    values : (n, d)   centre : (d,)   factor : (d up to LANES, at least min(64, d)); row j is what deviation j adds to
    the white numbers of its block   cells : (d up to LANES, k), whole numbers
    novelty : (n,) root mean square of the d white numbers   cell : (n,) 1 to k
    """
    n, d = values.shape
    pair = np.zeros((2, len(factor)), np.float32)
    white, squared = np.empty((2, factor.shape[1]), np.float32), np.empty((2, cells.shape[1]), np.float32)
    for i in range(0, n, 2):
        other = min(i + 1, n - 1)
        for j in range(d):
            pair[0, j] = np.float32(values[i, j] / 2048.0 - centre[j])
            pair[1, j] = np.float32(values[other, j] / 2048.0 - centre[j])
        total, other_total = 0.0, 0.0
        for start in range(0, d, BLOCK):
            whiten(pair, factor, start, min(start + BLOCK, len(factor)), white)
            for k in range(white.shape[1]):
                total += np.float64(white[0, k]) * np.float64(white[0, k])
                other_total += np.float64(white[1, k]) * np.float64(white[1, k])
        novelty[i], novelty[other] = np.float32(math.sqrt(total / d)), np.float32(math.sqrt(other_total / d))
        for j in range(d):
            pair[0, j], pair[1, j] = np.float32(values[i, j]), np.float32(values[other, j])
        measure(pair, cells, squared)
        cell[i], cell[other] = first_least(squared[0]) + 1, first_least(squared[1]) + 1


@kernel
def whiten(pair: F32, factor: F32, start: int, end: int, white: F32) -> None:
    """Two rows at once, so that a number of the matrix is fetched for both: one by one takes a third longer."""
    white[:] = np.float32(0.0)
    for j in range(start, end, 4):
        a, b, c, e = pair[0, j], pair[0, j + 1], pair[0, j + 2], pair[0, j + 3]
        p, q, r, s = pair[1, j], pair[1, j + 1], pair[1, j + 2], pair[1, j + 3]
        for k in range(white.shape[1]):
            v, w, x, y = factor[j, k], factor[j + 1, k], factor[j + 2, k], factor[j + 3, k]
            white[0, k] += a * v + b * w + c * x + e * y
            white[1, k] += p * v + q * w + r * x + s * y


@kernel
def measure(pair: F32, cells: F32, squared: F32) -> None:
    """Squared distances of two rows to all cells, (2, k).

    Leaving a cell early costs more than it saves: one cell after the other takes eight times as long.
    """
    squared[:] = np.float32(0.0)
    for j in range(0, len(cells), 4):
        a, b, c, e = pair[0, j], pair[0, j + 1], pair[0, j + 2], pair[0, j + 3]
        p, q, r, s = pair[1, j], pair[1, j + 1], pair[1, j + 2], pair[1, j + 3]
        for k in range(squared.shape[1]):
            v, w, x, y = cells[j, k], cells[j + 1, k], cells[j + 2, k], cells[j + 3, k]
            squared[0, k] += (a - v) * (a - v) + (b - w) * (b - w) + (c - x) * (c - x) + (e - y) * (e - y)
            squared[1, k] += (p - v) * (p - v) + (q - w) * (q - w) + (r - x) * (r - x) + (s - y) * (s - y)


@kernel
def first_least(squared: F32) -> int:
    """Index of the least, the first of several."""
    chosen = 0
    for k in range(1, len(squared)):
        if squared[k] < squared[chosen]:
            chosen = k
    return chosen


@making_kernel
def assign(values: I16, cells: F32, cell: I64, distance: F64) -> None:
    """Nearest cell of n rows, from 0, and the squared distance to it."""
    pair, squared = np.zeros((2, len(cells)), np.float32), np.empty((2, cells.shape[1]), np.float32)
    for i in range(0, len(values), 2):
        other = min(i + 1, len(values) - 1)
        for j in range(values.shape[1]):
            pair[0, j], pair[1, j] = np.float32(values[i, j]), np.float32(values[other, j])
        measure(pair, cells, squared)
        cell[i], cell[other] = first_least(squared[0]), first_least(squared[1])
        distance[i], distance[other] = squared[0, cell[i]], squared[1, cell[other]]


SINE = tuple((-1.0) ** k * (2.0 * math.pi) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(11))
"""Taylor coefficients of sin(2 pi s) in odd powers of s; up to s = 1/4 the twelfth would be 1e-18."""


@part
def cosine(angle: float) -> float:
    """cos(angle) without a branch or a call, so that compilers work on four at once: 64 of a library's took 1.5 us.

    Right to 1e-16 and what the angle's own rounding brings in; the same bits on every processor.
    """
    turns = angle * (0.5 / math.pi)
    s = 0.25 - abs(turns - np.rint(turns))
    square = s * s
    total = SINE[10]
    for k in range(9, -1, -1):
        total = total * square + SINE[k]
    return float(total * s)


@making_kernel
def random_features(values: I16, frequencies: F64, phases: F64, out: F64) -> None:
    """sqrt(2 / D) cos(x frequencies + phases) of n rows, x in standard units (Rahimi, Recht 2007, section 3).

    values : (n, d)   frequencies : (d, D)   phases : (D,)   out : (n, D)
    """
    scale = math.sqrt(2.0 / len(phases))
    angles = np.empty(len(phases))
    for i in range(len(values)):
        angles[:] = phases
        for j in range(values.shape[1]):
            x = values[i, j] / 2048.0
            for k in range(len(angles)):
                angles[k] += frequencies[j, k] * x
        for k in range(len(angles)):
            out[i, k] = scale * cosine(angles[k])
