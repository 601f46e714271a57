"""Sums of a window of event time, by groups of clients, and what they say of the population.

Clients fall into twelve groups by their keyed hash. A figure is a trimmed or clipped mean over groups, so that one
client, however busy, moves it by a twelfth at most; and what groups differ by is what chance does. Sums are whole
numbers: any order of rows, frames and partitions gives the same ones.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

from models.rows import F64, FLAG_REFUSED, I64, U64, UNIT, Rows

GROUPS = 12
GROUPS_MIN = 10
"""Nine could hardly be told from chance: 2 ** 8 ways to turn signs."""

_GROUP_SHIFT = np.uint64(20)
UNIT_BITS = 12
CLIP = 1_024.0
"""Scores and margins beyond count as this far out: squares of 2 ** 22 still sum over half a million rows."""

FEATURE_BITS = 20
MEASURED = ("score", "margin", "novelty")
_HEAD = 2 + 3 * len(MEASURED)


class Mean(NamedTuple):
    """value : trimmed mean over groups, in the statistic's own unit. spread : standard deviation of single rows."""

    value: float
    spread: float


class Sample(NamedTuple):
    """Groups against a reference. mmd : maximum mean discrepancy, 0 if chance explains it. p : None with few groups."""

    mmd: float
    p: float | None


def width(dim: int, features: int) -> int:
    """Columns of a window's sums: rows, refusals; count, sum, sum of squares of each MEASURED; values; features."""
    return _HEAD + dim + features


def tally(rows: Rows, features: F64) -> I64:
    """What each row adds: (n, width). features : (n, D), D may be 0."""
    n, dim = rows.values.shape
    added = np.empty((n, width(dim, features.shape[1])), np.int64)
    added[:, 0] = 1
    added[:, 1] = (rows.flags & FLAG_REFUSED) != 0
    for place, name in enumerate(MEASURED):
        column = getattr(rows, name)
        known = np.isfinite(column)
        fixed = np.rint(np.clip(np.where(known, column, 0.0), -CLIP, CLIP) * 2.0**UNIT_BITS).astype(np.int64)
        start = 2 + 3 * place
        added[:, start], added[:, start + 1], added[:, start + 2] = known, fixed, fixed * fixed
    added[:, _HEAD : _HEAD + dim] = rows.values
    added[:, _HEAD + dim :] = np.rint(features * 2.0**FEATURE_BITS)
    return added


def add(windows: dict[int, I64], window: I64, client: U64, added: I64) -> None:
    """Sum rows into their windows' (GROUPS, width) sums. window : (n,) number of each row's window."""
    group = ((client >> _GROUP_SHIFT) % np.uint64(GROUPS)).astype(np.int64)
    place = window * GROUPS + group
    order = np.argsort(place, kind="stable")
    places, starts = np.unique(place[order], return_index=True)
    sums = np.add.reduceat(added[order], starts, axis=0)
    for at, total in zip(places.tolist(), sums, strict=True):
        number, group_number = divmod(at, GROUPS)
        if number not in windows:
            windows[number] = np.zeros((GROUPS, added.shape[1]), np.int64)
        windows[number][group_number] += total


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
    means = sums[held, _HEAD : _HEAD + len(centre)] / sums[held, :1]
    return _trimmed(means - centre * UNIT)


def feature_means(sums: I64, features: int) -> F64:
    """(GROUPS, D) mean random Fourier features of each group; NaN for a group without rows."""
    held = sums[:, :1] > 0
    total = sums[:, sums.shape[1] - features :] / 2.0**FEATURE_BITS
    means: F64 = np.where(held, total / np.maximum(sums[:, :1], 1), np.nan)
    return means


def compare(means: F64, reference: F64) -> Sample:
    """Do groups' random Fourier features, (GROUPS, D), NaN for none, differ from the reference's mean, (D,)?

    Maximum mean discrepancy without bias (Gretton et al. 2012, lemma 6, with groups for rows), and the exact test that
    turns the signs of whole groups (randomisation under symmetry: Lehmann, Romano 2005, section 15.2), since rows of
    one client are not independent.
    """
    means = means[np.isfinite(means[:, 0])]
    groups = len(means)
    if groups < 2:
        return Sample(0.0, None)
    away = np.rint(_clipped(means - reference) * 2.0**FEATURE_BITS).astype(np.int64)
    products = away @ away.T
    np.fill_diagonal(products, 0)
    mmd2 = float(products.sum()) / (groups * (groups - 1)) / 2.0 ** (2 * FEATURE_BITS)
    if groups < GROUPS_MIN:
        return Sample(max(mmd2, 0.0) ** 0.5, None)
    signs = _SIGNS[groups]
    turned = ((signs @ products) * signs).sum(axis=1)
    return Sample(max(mmd2, 0.0) ** 0.5, float(np.count_nonzero(turned >= turned[0])) / len(signs))


def _clipped(away: F64) -> F64:
    """Deviations of groups, (g, k), none longer than the median one."""
    length = np.sqrt((away * away).sum(axis=1))
    pulled: F64 = away * np.minimum(1.0, np.median(length) / np.maximum(length, 1e-12))[:, None]
    return pulled


def _signs(groups: int) -> I64:
    """Every way to turn signs, the first as they are; turning all gives the same again and is left out."""
    return np.array([(1, *rest) for rest in product((1, -1), repeat=groups - 1)], np.int64)


_SIGNS = {groups: _signs(groups) for groups in range(GROUPS_MIN, GROUPS + 1)}
