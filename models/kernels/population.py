"""How far a row stands from the population, and in which of its cells.

One row at a time, in a fixed order of 32-bit sums. Four numbers are added at once, and to many sums side by side, which
is what a processor's vector unit wants: whitening and 64 distances take .3 us for 23 numbers, .6 us for 64.
"""

import math

import numpy as np

from models.kernels.jit import kernel, making_kernel
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
    row = np.zeros(len(factor), np.float32)
    white, squared = np.empty(factor.shape[1], np.float32), np.empty(cells.shape[1], np.float32)
    for i in range(n):
        for j in range(d):
            row[j] = np.float32(values[i, j] / 2048.0 - centre[j])
        total = 0.0
        for start in range(0, d, BLOCK):
            whiten(row, factor, start, min(start + BLOCK, len(factor)), white)
            for k in range(len(white)):
                total += np.float64(white[k]) * np.float64(white[k])
        novelty[i] = np.float32(math.sqrt(total / d))
        for j in range(d):
            row[j] = np.float32(values[i, j])
        cell[i] = nearest(row, cells, squared) + 1


@kernel
def whiten(row: F32, factor: F32, start: int, end: int, white: F32) -> None:
    white[:] = np.float32(0.0)
    for j in range(start, end, 4):
        a, b, c, e = row[j], row[j + 1], row[j + 2], row[j + 3]
        for k in range(len(white)):
            white[k] += a * factor[j, k] + b * factor[j + 1, k] + c * factor[j + 2, k] + e * factor[j + 3, k]


@kernel
def nearest(row: F32, cells: F32, squared: F32) -> int:
    """Index of the nearest cell, the first of several; fills the squared distances to all of them.

    Leaving a cell early costs more than it saves: one cell after the other takes eight times as long.
    """
    squared[:] = np.float32(0.0)
    for j in range(0, len(cells), 4):
        a, b, c, e = row[j], row[j + 1], row[j + 2], row[j + 3]
        for k in range(len(squared)):
            p, q, r, s = a - cells[j, k], b - cells[j + 1, k], c - cells[j + 2, k], e - cells[j + 3, k]
            squared[k] += p * p + q * q + r * r + s * s
    chosen = 0
    for k in range(1, len(squared)):
        if squared[k] < squared[chosen]:
            chosen = k
    return chosen


@making_kernel
def assign(values: I16, cells: F32, cell: I64, distance: F64) -> None:
    """Nearest cell of n rows, from 0, and the squared distance to it."""
    row, squared = np.zeros(len(cells), np.float32), np.empty(cells.shape[1], np.float32)
    for i in range(len(values)):
        for j in range(values.shape[1]):
            row[j] = np.float32(values[i, j])
        cell[i] = nearest(row, cells, squared)
        distance[i] = squared[cell[i]]


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
            out[i, k] = scale * math.cos(angles[k])
