"""Sums over the rows of windows of time, by groups of clients. Whole numbers: any order gives the same ones."""

import math

import numpy as np

from models.kernels.jit import kernel
from models.rows import F32, F64, FLAG_REFUSED, I16, I64, U16, U64

GROUPS = 12
GROUP_SHIFT = np.uint64(20)
UNIT_BITS = 12
CLIP = 1_024.0
"""Scores and margins beyond count as this far out: squares of 2 ** 22 still sum over half a million rows."""

FEATURE_BITS = 20
MEASURED = ("score", "margin", "novelty")
HEAD = 2 + 3 * len(MEASURED)


@kernel
def add_rows(
    window: I64, client: U64, flags: U16, measured: tuple[F32, F32, F32], values: I16, features: F64, sums: I64
) -> None:
    """Add n rows to sums : (windows, GROUPS, HEAD + d + D), whose columns are

    rows, refusals; count, sum and sum of squares of each of MEASURED; values; features.

    window : (n,) index into sums   measured : (n,) each, or NaN   values : (n, d)   features : (n, D)
    """
    d, unit, feature_unit = values.shape[1], 2.0**UNIT_BITS, 2.0**FEATURE_BITS
    for i in range(len(client)):
        into = sums[window[i], (client[i] >> GROUP_SHIFT) % np.uint64(GROUPS)]
        into[0] += 1
        into[1] += (flags[i] & FLAG_REFUSED) != 0
        for k in range(3):
            value = np.float64(measured[k][i])
            if math.isfinite(value):
                fixed = np.int64(np.rint(min(max(value, -CLIP), CLIP) * unit))
                into[2 + 3 * k] += 1
                into[3 + 3 * k] += fixed
                into[4 + 3 * k] += fixed * fixed
        for j in range(d):
            into[HEAD + j] += values[i, j]
        for j in range(features.shape[1]):
            into[HEAD + d + j] += np.int64(np.rint(features[i, j] * feature_unit))
