"""The attacked model: gradient boosting, really trained; half of the people are held out for its AUC."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from bench.detection.datasets import Dataset
from models.kernels.jit import making_kernel
from models.rows import F64, I64

TRAINING_SHARE = 0.5
SEED = 0


class Forest(NamedTuple):
    """Nodes of all trees, one after another. starts : (trees,) root of each.

    feature, left, right : (nodes,), feature -1 at a leaf. threshold : the value at a leaf. blank_left : (nodes,) where
    a blank goes.
    """

    starts: I64
    feature: I64
    threshold: F64
    blank_left: NDArray[np.bool_]
    left: I64
    right: I64


@dataclass(frozen=True)
class Model:
    """trained : rows of the data set it was trained on. auc : on the other rows.

    forest, baseline : the trees of scikit-learn, walked by a kernel of our own: one row costs scikit-learn 0.5 ms
    with one thread, and attackers ask for one row at a time.
    """

    forest: Forest
    baseline: float
    trained: I64
    auc: float

    def predict_proba(self, inputs: F64) -> F64:
        """(m, d) to (m, 2): probability of decline and of accept."""
        accept = self.accept(inputs)
        return np.column_stack((1.0 - accept, accept))

    def accept(self, inputs: F64) -> F64:
        """(m,) probability of accept."""
        raw = np.full(len(inputs), self.baseline)
        _walk(np.ascontiguousarray(inputs, np.float64), *self.forest, raw)
        probability: F64 = 1.0 / (1.0 + np.exp(-raw))
        return probability

    def score(self, inputs: F64) -> F64:
        """(m,) probability of accept, with the six decimals that a gateway logs."""
        return np.round(self.accept(inputs), 6)


def label(score: F64) -> I64:
    """1 = accept."""
    return (score >= 0.5).astype(np.int64)


def fit(dataset: Dataset, rows: I64) -> HistGradientBoostingClassifier:
    """100 rounds, 15 leaves; category codes as numbers."""
    trees = HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=15, learning_rate=0.07, early_stopping=False, random_state=SEED
    )
    # Threads that wait for a core of a busy machine turn one second into twenty.
    with threadpool_limits(1):
        return trees.fit(dataset.inputs[rows], dataset.target[rows])


def train(dataset: Dataset) -> Model:
    """Fit on a fixed half of the rows; the AUC is that of the other half."""
    order = np.random.default_rng(SEED).permutation(len(dataset.inputs))
    trained, held_out = np.split(order, [int(len(order) * TRAINING_SHARE)])
    trees = fit(dataset, trained)
    model = Model(_forest(trees), float(np.ravel(trees._baseline_prediction)[0]), np.sort(trained), 0.0)
    auc = roc_auc_score(dataset.target[held_out], model.accept(dataset.inputs[held_out]))
    return Model(model.forest, model.baseline, model.trained, float(auc))


def _forest(trees: HistGradientBoostingClassifier) -> Forest:
    """The nodes as scikit-learn 1.9 holds them; a test compares the answers with its own."""
    parts = [tree.nodes for [tree] in trees._predictors]
    starts = np.concatenate(([0], np.cumsum([len(nodes) for nodes in parts])))
    nodes = np.concatenate(parts)
    root = np.repeat(starts[:-1], np.diff(starts))
    leaf = nodes["is_leaf"].astype(bool)
    return Forest(
        starts[:-1].astype(np.int64),
        np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
        np.where(leaf, nodes["value"], nodes["num_threshold"]),
        nodes["missing_go_to_left"].astype(bool),
        (nodes["left"] + root).astype(np.int64),
        (nodes["right"] + root).astype(np.int64),
    )


@making_kernel
def _walk(
    inputs: F64,
    starts: I64,
    feature: I64,
    threshold: F64,
    blank_left: NDArray[np.bool_],
    left: I64,
    right: I64,
    raw: F64,
) -> None:
    """Add every tree's value to raw (m,)."""
    for row in range(len(inputs)):
        for start in starts:
            node = start
            while feature[node] >= 0:
                value = inputs[row, feature[node]]
                goes_left = blank_left[node] if np.isnan(value) else value <= threshold[node]
                node = left[node] if goes_left else right[node]
            raw[row] += threshold[node]
