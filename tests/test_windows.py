"""Sums of windows equal their slow twin, whatever the rows hold."""

import math
from fractions import Fraction

import numpy as np
import pytest

from detector.drift import windows
from models.kernels.drift.windows import GROUPS
from models.rows import F64, FLAG_REFUSED, I64, Rows
from tests.frame_rows import rows

MEASURED = ("score", "margin", "novelty")


def summed(number: I64, content: Rows, features: F64) -> dict[int, list[list[int]]]:
    """Row by row, in Python's integers and fractions."""
    found: dict[int, list[list[int]]] = {}
    for i, window in enumerate(number.tolist()):
        added = [1, int(content.flags[i] & FLAG_REFUSED != 0)]
        for name in MEASURED:
            value = float(getattr(content, name)[i])
            known = math.isfinite(value)
            fixed = round(Fraction(min(max(value, -1024.0), 1024.0)) * 4096) if known else 0
            added += [int(known), fixed, fixed * fixed]
        added += content.values[i].tolist()
        added += [round(Fraction(value) * 2**20) for value in features[i].tolist()]
        sums = found.setdefault(window, [[0] * len(added) for _ in range(GROUPS)])
        group = int(content.client[i]) // 2**20 % GROUPS
        sums[group] = [one + other for one, other in zip(sums[group], added, strict=True)]
    return found


@pytest.mark.parametrize(("d", "features"), [(8, 64), (64, 0), (3, 5)])
def test_sums(d: int, features: int) -> None:
    rng = np.random.default_rng(d)
    content = rows(300, d, 2, seed=d)
    content.score[:40] = rng.choice(np.array([np.inf, -np.inf, np.nan, 5_000, -5_000, 2.5 / 4096, 3.5 / 4096]), 40)
    number, said = rng.integers(-2, 3, 300), np.cos(rng.standard_normal((300, features)))
    found: dict[int, I64] = {}
    for part in (slice(0, 100), slice(100, 300)):
        columns = {name: column[part] for name, column in content._asdict().items() if not name.startswith("id_")}
        windows.add(found, number[part], content._replace(**columns), said[part])
    assert {window: sums.tolist() for window, sums in found.items()} == summed(number, content, said)
    assert len(found) == 5
