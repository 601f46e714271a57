"""How far a row stands from the population, and in which of its cells. One row at a time, in a fixed order."""

import math

import numpy as np

from models.kernels.jit import kernel
from models.rows import F32, F64, I16, I64, U32

BLOCK = 64
"""Numbers of `values` that are whitened together, as the encoder rotates them; the covariance between blocks is 0."""


@kernel
def describe_rows(values: I16, centre: F64, factor: F64, cells: F64, novelty: F32, cell: U32) -> None:
    """Fill novelty and cell of n rows.

    values : (n, d)   centre : (d,)   factor : (d, min(64, d)); row j is what deviation j adds to the white numbers of
    its block: the innermost loop then runs over sums that do not wait for each other
    cells : (d, k) whole numbers   novelty : (n,) root mean square of the d white numbers   cell : (n,) 1 to k
    """
    n, d = values.shape
    white, squared = np.empty(factor.shape[1]), np.empty(cells.shape[1])
    for i in range(n):
        total = 0.0
        for start in range(0, d, BLOCK):
            width = min(BLOCK, d - start)
            white[:] = 0.0
            for j in range(width):
                deviation = values[i, start + j] / 2048.0 - centre[start + j]
                for k in range(len(white)):
                    white[k] += factor[start + j, k] * deviation
            for k in range(width):
                total += white[k] * white[k]
        novelty[i] = np.float32(math.sqrt(total / d))
        cell[i] = nearest(values[i], cells, squared) + 1


@kernel
def nearest(row: I16, cells: F64, squared: F64) -> int:
    """Index of the nearest cell, the first of several; fills the squared distances to all of them, in value units.

    Whole numbers below 2**53, thus exact in any order. Leaving a cell early costs more than it saves: 64 sums side by
    side take 0.24 us for 23 numbers, one after the other with a way out 1.8.
    """
    squared[:] = 0.0
    for j in range(len(row)):
        x = np.float64(row[j])
        for k in range(len(squared)):
            step = x - cells[j, k]
            squared[k] += step * step
    chosen = 0
    for k in range(1, len(squared)):
        if squared[k] < squared[chosen]:
            chosen = k
    return chosen


@kernel
def assign(values: I16, cells: F64, cell: I64, distance: F64) -> None:
    """Nearest cell of n rows, from 0, and the squared distance to it."""
    squared = np.empty(cells.shape[1])
    for i in range(len(values)):
        cell[i] = nearest(values[i], cells, squared)
        distance[i] = squared[cell[i]]


@kernel
def random_features(values: I16, frequencies: F64, phases: F64, out: F64) -> None:
    """sqrt(2 / D) cos(frequencies x + phases) of n rows, x in standard units (Rahimi, Recht 2007, section 3).

    values : (n, d)   frequencies : (D, d)   phases : (D,)   out : (n, D)
    """
    n, d = values.shape
    scale = math.sqrt(2.0 / len(phases))
    for i in range(n):
        for k in range(len(phases)):
            angle = phases[k]
            for j in range(d):
                angle += frequencies[k, j] * (values[i, j] / 2048.0)
            out[i, k] = scale * math.cos(angle)
