"""The population of a space: scatter and clusters of its rows, and kernel features that tell two samples apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.client_shares import fair_rows
from models.kernels.encode.population import BLOCK, LANES, assign, describe_rows, random_features
from models.rows import F32, F64, I16, I64, U32, U64, UNIT

RIDGE = 0.02
CLIP_MEDIANS = 1.5
SCATTER_ROUNDS = 6
VARIANCE_MIN = 1e-3
CELLS = 64
CELL_ROWS_SHARE = 0.98
"""Cells divide the most ordinary rows; the farthest would each take one for themselves."""
ROUNDS_MAX = 30
FEATURES = 64
PAIRS = 4_000

_ARRAYS = ("centre", "factor", "cells", "bandwidth", "rff_mean")


@dataclass(frozen=True)
class Population:
    """Summary of fitting clients' rows. Numbers are in standard units unless stated otherwise.

    centre : (d,)   factor : (d, min(64, d)) the whitening, transposed, block by block; row j stands for deviation j
    cells : (k, d) int16, value units, sorted; k at most 64   bandwidth : () median distance of two rows
    rff_mean : (64,) mean of `rff`
    """

    encoder_id: str
    centre: F64
    factor: F64
    cells: I16
    bandwidth: F64
    rff_mean: F64

    def describe(self, values: I16) -> tuple[F32, U32]:
        """novelty (n,), Mahalanobis distance by the root of d, so that 1 is ordinary; cell (n,), 1 to k."""
        novelty, cell = np.empty(len(values), np.float32), np.empty(len(values), np.uint32)
        describe_rows(np.ascontiguousarray(values), self.centre, self._factor, self._cells, novelty, cell)
        return novelty, cell

    def rff(self, values: I16) -> F64:
        """(n, 64) random Fourier features of a Gaussian kernel; their mean tells samples apart (Rahimi, Recht 2007)."""
        frequencies, phases = self._random
        out = np.empty((len(values), FEATURES))
        random_features(np.ascontiguousarray(values), frequencies, phases, out)
        return out

    @cached_property
    def _factor(self) -> F32:
        return _padded(self.factor, wide=True)

    @cached_property
    def _cells(self) -> F32:
        return _padded(self.cells.T)

    @cached_property
    def _random(self) -> tuple[F64, F64]:
        return _frequencies(self.encoder_id, len(self.centre), float(self.bandwidth))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"population.{name}": getattr(self, name) for name in _ARRAYS}

    @staticmethod
    def from_arrays(encoder_id: str, arrays: Mapping[str, NDArray[Any]]) -> "Population | None":
        """None if none was stored."""
        if "population.centre" not in arrays:
            return None
        return Population(encoder_id, **{name: arrays[f"population.{name}"] for name in _ARRAYS})


def _padded(matrix: NDArray[Any], wide: bool = False) -> F32:
    """As the kernels want it: 32 bits, a multiple of LANES rows. wide : and of 16 columns, since a rest is slow."""
    rows, columns = matrix.shape
    padded = np.zeros((-(-rows // LANES) * LANES, -(-columns // 16) * 16 if wide else columns), np.float32)
    padded[:rows, :columns] = matrix
    return padded


def fit_population(values: I16, encoder_id: str, clients: U64 | None = None) -> Population:
    """values : (n, d), n > 0, as the encoder gives them.

    clients : (n,) who sent each row: all clients weigh the same. Each row is a client of its own if None.
    """
    if clients is not None:
        values = np.ascontiguousarray(values[fair_rows(clients)])
    centre, factor, distance = _fit_scatter(values)
    cells = fit_cells(values[distance <= np.quantile(distance, CELL_ROWS_SHARE, method="higher")])
    bandwidth = _median_distance(values)
    unknown = np.zeros(FEATURES)
    bare = Population(encoder_id, centre, factor, cells, np.array(bandwidth), unknown)
    return replace(bare, rff_mean=bare.rff(values).mean(axis=0))


def _fit_scatter(values: I16) -> tuple[F64, F64, F64]:
    """Centre, whitening, and (n,) distances under them.

    An M-estimate of scatter (Maronna 1976), so that few rows cannot widen it.

    Rows beyond one and a half median distances are pulled in to that distance, then distances are measured again; the
    first ones are Euclidean.
    """
    median = np.median(values, axis=0).astype(np.int64)
    deviations = values - median
    distance = np.sqrt((deviations**2).sum(axis=1))
    novelty, cell = np.empty(len(values), np.float32), np.empty(len(values), np.uint32)
    anywhere = _padded(np.zeros((values.shape[1], 1)))
    for _ in range(SCATTER_ROUNDS):
        limit = max(CLIP_MEDIANS * float(np.median(distance)), float(np.quantile(distance, 0.9)), 1e-9)
        near = np.rint(deviations * (limit / np.maximum(distance, limit))[:, None]).astype(np.int64)
        mean = near.mean(axis=0)
        centre, factor = (median + mean) / UNIT, _whitening(near, mean)
        describe_rows(values, centre, _padded(factor), anywhere, novelty, cell)
        distance = novelty.astype(np.float64)
    return centre, factor, distance


def _whitening(near: I64, mean: F64) -> F64:
    """Transposed, block by block. Covariances are shrunk by 2 % towards their mean variance (Ledoit, Wolf 2004,
    equation 4, with a fixed share): directions in which nothing varied stay finite."""
    n, d = near.shape
    factor = np.zeros((d, min(BLOCK, d)))
    for start in range(0, d, BLOCK):
        block = slice(start, min(start + BLOCK, d))
        products = near[:, block].T @ near[:, block]  # whole numbers: the same on every processor
        covariance = (products / n - np.outer(mean[block], mean[block])) / UNIT**2
        variance = max(float(np.trace(covariance)) / len(covariance), VARIANCE_MIN)
        shrunk = (1.0 - RIDGE) * covariance + RIDGE * variance * np.eye(len(covariance))
        factor[block, : len(shrunk)] = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return factor


def fit_cells(values: I16) -> I16:
    """(k, d), sorted: k-means++ (Arthur, Vassilvitskii 2007), then Lloyd's rounds, centres in whole numbers."""
    cells = _seed_cells(values, np.random.Generator(np.random.Philox(0)))
    cell, distance = np.empty(len(values), np.int64), np.empty(len(values))
    for _ in range(ROUNDS_MAX):
        assign(values, _padded(cells.T), cell, distance)
        moved = cells.copy()
        counts = np.bincount(cell, minlength=len(cells))
        held = counts > 0
        for j in range(values.shape[1]):
            sums = np.bincount(cell, values[:, j], len(cells))
            moved[held, j] = np.rint(sums[held] / counts[held])
        if np.array_equal(moved, cells):
            break
        cells = moved
    distinct: I16 = np.unique(cells, axis=0)
    return distinct


def _seed_cells(values: I16, rng: np.random.Generator) -> I16:
    """Distinct rows, each drawn in proportion to its squared distance from those before; fewer if there are no more."""
    chosen = [int(rng.integers(len(values)))]
    cell, distance = np.empty(len(values), np.int64), np.empty(len(values))
    least = np.full(len(values), np.inf)
    while True:
        assign(values, _padded(values[chosen[-1:]].T), cell, distance)
        least = np.minimum(least, distance)
        reach = np.cumsum(least)
        if len(chosen) == CELLS or reach[-1] == 0.0:
            return values[chosen]
        chosen.append(int(np.searchsorted(reach, rng.random() * reach[-1], "right")))


def _median_distance(values: I16) -> float:
    """Of random pairs, in standard units (the median heuristic, Garreau et al. 2017); 1 if most rows are the same."""
    rng = np.random.Generator(np.random.Philox(1))
    one, other = rng.integers(len(values), size=(2, PAIRS))
    steps = values[one].astype(np.int64) - values[other]
    median = float(np.median(np.sqrt((steps**2).sum(axis=1)))) / UNIT
    return median if median > 0.0 else 1.0


def _frequencies(encoder_id: str, d: int, bandwidth: float) -> tuple[F64, F64]:
    """(d, 64) and (64,), the same for an encoder wherever they are drawn."""
    seed = int.from_bytes(
        hashlib.blake2b(encoder_id.encode(), person=b"probewatch.rff", digest_size=16).digest(), "big"
    )
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.standard_normal((d, FEATURES)) / bandwidth, rng.uniform(0.0, 2.0 * np.pi, FEATURES)
