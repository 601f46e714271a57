"""Sums of a window of event time, by groups of clients, and the figures that follow from them.

Clients fall into twelve groups by their keyed hash. A figure is a trimmed or clipped mean over groups, so that one
client, however busy, moves it by a twelfth at most; and differences between groups measure chance. Sums are whole
numbers: any order of rows, frames and partitions gives the same ones.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

from models.kernels.drift.windows import FEATURE_BITS, GROUPS, HEAD, MEASURED, UNIT_BITS, add_rows
from models.rows import F64, I64, UNIT, Rows

GROUPS_MIN = 10
"""Nine could hardly be distinguished from chance: 2 ** 8 ways to turn signs."""


CLOSE = 64


class Mean(NamedTuple):
    """value : trimmed mean over groups, in the statistic's own unit. spread : standard deviation of single rows."""

    value: float
    spread: float


class WindowSample(NamedTuple):
    """Groups against a reference. mmd : maximum mean discrepancy, 0 if chance explains it. p : None with few groups."""

    mmd: float
    p: float | None


def width(dim: int, features: int) -> int:
    """Columns of a window's sums: rows, refusals; count, sum, sum of squares of each MEASURED; values; features."""
    return HEAD + dim + features


def add(windows: dict[int, I64], window: I64, rows: Rows, features: F64) -> None:
    """Add rows to their windows' (GROUPS, width) sums. window : (n,) number of each row's. features : (n, D)."""
    numbers, indices = _numbered(window)
    sums = np.zeros((len(numbers), GROUPS, width(rows.values.shape[1], features.shape[1])), np.int64)
    add_rows(indices, rows.client, rows.flags, (rows.score, rows.margin, rows.novelty), rows.values, features, sums)
    for number, added in zip(numbers.tolist(), sums, strict=True):
        if number in windows:
            windows[number] += added
        elif added[:, 0].any():
            windows[number] = added


def _numbered(window: I64) -> tuple[I64, I64]:
    """Window numbers, and each row's index into them; without sorting if they are close together."""
    low, high = int(window.min()), int(window.max())
    if high - low < CLOSE:
        return np.arange(low, high + 1), window - low
    return np.unique(window, return_inverse=True)


def row_count(sums: I64) -> int:
    return int(sums[:, 0].sum())


def group_count(sums: I64) -> int:
    return int(np.count_nonzero(sums[:, 0]))


def measured(sums: I64, name: str) -> Mean | None:
    """Of the rows that have such a value; None without any."""
    start = 2 + 3 * MEASURED.index(name)
    count, total, squares = (sums[:, start + k].astype(np.float64) for k in range(3))
    held = count > 0
    if not held.any():
        return None
    mean = float(total.sum() / count.sum())
    variance = max(float(squares.sum() / count.sum()) - mean * mean, 0.0)
    return Mean(float(_trimmed(total[held] / count[held])) / 2**UNIT_BITS, variance**0.5 / 2**UNIT_BITS)


def refusals(sums: I64) -> Mean:
    """Share of rows that were refused. There must be rows."""
    held = sums[:, 0] > 0
    share = float(sums[:, 1].sum() / sums[:, 0].sum())
    return Mean(float(_trimmed(sums[held, 1] / sums[held, 0])), (share * (1.0 - share)) ** 0.5)


def _trimmed(means: F64) -> F64:
    """Mean over groups (first axis) without the lowest and the highest sixth: two of twelve each."""
    out = len(means) // 6
    kept: F64 = np.sort(means, axis=0)[out : len(means) - out].mean(axis=0)
    return kept


def shift(sums: I64, centre: F64) -> F64:
    """(d,) how far the population stands from `centre` (standard units), in value units."""
    held = sums[:, 0] > 0
    means = sums[held, HEAD : HEAD + len(centre)] / sums[held, :1]
    return _trimmed(means - centre * UNIT)


def feature_means(sums: I64, features: int) -> F64:
    """(GROUPS, D) mean random Fourier features of each group; NaN for a group without rows."""
    held = sums[:, :1] > 0
    total = sums[:, sums.shape[1] - features :] / 2.0**FEATURE_BITS
    means: F64 = np.where(held, total / np.maximum(sums[:, :1], 1), np.nan)
    return means


def compare(means: F64, reference: F64) -> WindowSample:
    """Do groups' random Fourier features, (GROUPS, D), NaN for none, differ from the reference's mean, (D,)?

    Maximum mean discrepancy without bias (Gretton et al. 2012, lemma 6, with groups for rows), and the exact test that
    turns the signs of whole groups (randomisation under symmetry: Lehmann, Romano 2005, section 15.2), since rows of
    one client are not independent.
    """
    means = means[np.isfinite(means[:, 0])]
    groups = len(means)
    if groups < 2:
        return WindowSample(0.0, None)
    away = np.rint(_clipped(means - reference) * 2.0**FEATURE_BITS).astype(np.int64)
    products = away @ away.T
    np.fill_diagonal(products, 0)
    mmd2 = float(products.sum()) / (groups * (groups - 1)) / 2.0 ** (2 * FEATURE_BITS)
    if groups < GROUPS_MIN:
        return WindowSample(max(mmd2, 0.0) ** 0.5, None)
    signs = _SIGNS[groups]
    turned = ((signs @ products) * signs).sum(axis=1)
    return WindowSample(max(mmd2, 0.0) ** 0.5, float(np.count_nonzero(turned >= turned[0])) / len(signs))


def _clipped(away: F64) -> F64:
    """Deviations of groups, (g, k), none longer than the median one."""
    length = np.sqrt((away * away).sum(axis=1))
    pulled: F64 = away * np.minimum(1.0, np.median(length) / np.maximum(length, 1e-12))[:, None]
    return pulled


def _signs(groups: int) -> I64:
    """Every way to turn signs, the first as they are; turning all gives the same again and is left out."""
    return np.array([(1, *rest) for rest in product((1, -1), repeat=groups - 1)], np.int64)


_SIGNS = {groups: _signs(groups) for groups in range(GROUPS_MIN, GROUPS + 1)}
