"""Methods that judge one input at a time against ordinary ones, learned from fitting clients and then left alone.

A client's suspicion is the sum over its last ten distinct inputs, beyond the 99 % quantile of ordinary ones.
"""

import importlib
import types
from collections.abc import Callable

import numpy as np
from pysad.models import LODA, RSHash
from river.anomaly import HalfSpaceTrees

from bench.detection.methods.base import Method, View, indicators, rolling_sum
from models.rows import F32, F64, I64

LAST = 10
TREES, TREE_SIZE = 20, 256
LEARNED = 4_000
JUDGED = 500
"""Ordinary rows that give the 99 % quantile; not among those learned from."""

Judge = Callable[[F32], float]


def half_space_trees(at: View, reference: View) -> F64:
    ordinary = indicators(reference)
    low, high = ordinary.min(axis=0), ordinary.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    names = [str(j) for j in range(ordinary.shape[1])]
    model = HalfSpaceTrees(n_trees=25, height=10, window_size=250, seed=0)

    def features(x: F32) -> dict[str, float]:
        return dict(zip(names, np.clip((x - low) / span, 0, 1).tolist(), strict=True))

    for x in ordinary[:LEARNED]:
        model.learn_one(features(x))
    return _sums(at, ordinary, lambda x: float(model.score_one(features(x))))


def random_cut_forest(at: View, reference: View) -> F64:
    """Collusive displacement of the input in each tree, averaged; it is taken out again."""
    rrcf = _rrcf()
    ordinary = indicators(reference).astype(float)
    rng = np.random.default_rng(0)
    trees = []
    for _ in range(TREES):
        chosen = rng.choice(min(len(ordinary), LEARNED), TREE_SIZE, replace=False)
        trees.append(
            # Labels as an array: equal rows share a leaf, whose labels the library picks by a list of places.
            rrcf.RCTree(ordinary[chosen], index_labels=np.arange(TREE_SIZE), random_state=int(rng.integers(2**31)))
        )

    def judge(x: F32) -> float:
        total = 0.0
        for tree in trees:
            tree.insert_point(x.astype(float), index="new")
            total += tree.codisp("new")
            tree.forget_point("new")
        return total / TREES

    return _sums(at, indicators(reference), judge)


def loda(at: View, reference: View) -> F64:
    ordinary = indicators(reference).astype(float)
    model = LODA(num_bins=32, num_random_cuts=100, random_state=0)
    for x in ordinary[:LEARNED]:
        model.fit_partial(x)
    return _sums(at, indicators(reference), lambda x: float(model.score_partial(x.astype(float))))


def rs_hash(at: View, reference: View) -> F64:
    ordinary = indicators(reference).astype(float)
    low, high = ordinary.min(axis=0), ordinary.max(axis=0) + 1e-9
    model = RSHash(low, high, num_hash_fns=4, random_state=0)
    for x in ordinary[:LEARNED]:
        model.fit_partial(x)
    return _sums(at, indicators(reference), lambda x: float(model.score_partial(np.clip(x, low, high))))


def _sums(at: View, ordinary: F32, judge: Judge) -> F64:
    """Sums of excess over the client's last rows; each distinct input is judged once."""
    usual = float(np.quantile([judge(x) for x in ordinary[-JUDGED:]], 0.99))
    score = np.zeros(len(at.x))
    wide = indicators(at)
    for row in np.flatnonzero(~at.repeat):
        score[row] = max(0.0, judge(wide[row]) - usual)
    return rolling_sum(score, at, LAST)


def _rrcf() -> types.ModuleType:
    """Imported late: it warns of pkg_resources."""
    return importlib.import_module("rrcf")


def _bytes(rows: I64, fields: int) -> F64:
    return np.full(len(rows), 8.0 * LAST)


METHODS = (
    Method(
        "half-space trees",
        "Tan, Ting, Liu 2011; river.anomaly",
        f"25 trees of height 10, {LEARNED:,} rows",
        half_space_trees,
        _bytes,
        slow=True,
    ),
    Method(
        "random cut forest",
        "Guha et al. 2016; rrcf 0.4",
        f"{TREES} trees of {TREE_SIZE} rows; codisp",
        random_cut_forest,
        _bytes,
        slow=True,
    ),
    Method("LODA", "Pevny 2016; PySAD", f"100 projections, 32 bins, {LEARNED:,} rows", loda, _bytes, slow=True),
    Method(
        "RS-Hash",
        "Sathe, Aggarwal 2016; PySAD",
        f"100 components, 4 hash tables, {LEARNED:,} rows",
        rs_hash,
        _bytes,
        slow=True,
    ),
)
