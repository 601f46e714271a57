"""Attackers with a spreadsheet: sweeps of one or more fields, and a climb to what the model likes best."""

import numpy as np

from bench.detection.attackers.probing import Prober
from models.rows import F64, I64

CURVE = 20
"""Answers after which a sweep has what it wants: a response curve of twenty points."""
VALUES_MAX = 200
WIDE_STEPS = 100
GRID_SIDE = 12
NOISE = 0.02
VARIANTS = 10
INVERTED_QUANTILE = 0.99


def one_field(prober: Prober, rng: np.random.Generator) -> None:
    """One field from end to end of its plausible range in equal steps; then the next field."""
    for j in rng.permutation(_wide(prober)).tolist():
        _sweep(prober, j, min(VALUES_MAX, max(CURVE, prober.rows_max // 2)))


def grid(prober: Prober, rng: np.random.Generator) -> None:
    """Two fields on a grid of 12 by 12, line by line; then the next two."""
    while True:
        first, second = rng.choice(_wide(prober), 2, replace=False)
        for value in _values(prober, first, GRID_SIDE):
            for other in _values(prober, second, GRID_SIDE):
                _ask(prober, np.array([first, second]), np.array([value, other]))


def noisy(prober: Prober, rng: np.random.Generator) -> None:
    """One field in equal steps while two others move at random by up to 2 % of their ranges."""
    while True:
        fields = rng.choice(_wide(prober), 3, replace=False)
        for value in _values(prober, fields[0], max(CURVE, prober.rows_max // 2)):
            noise = rng.uniform(-NOISE, NOISE, 2) * prober.dataset.span[fields[1:]]
            _ask(prober, fields, np.concatenate(([value], prober.origin[fields[1:]] + noise)))


def applicants(prober: Prober, rng: np.random.Generator) -> None:
    """Ten values of one field for each of many applicants."""
    [j] = rng.choice(_wide(prober), 1)
    while True:
        _sweep(prober, int(j), VARIANTS)
        person = prober.dataset.inputs[rng.integers(len(prober.dataset.inputs))]
        if np.isfinite(person[j]):
            prober.start_from(person)


def inversion(prober: Prober, rng: np.random.Generator) -> None:
    """Climb by score from an ordinary person to what the model finds most acceptable (Fredrikson et al. 2015).

    A random half of the numbers moves at a time; steps grow after a success and shrink after a failure. It has what it
    wants at a score that only one real person in a hundred has.
    """
    goal = np.quantile(prober.model.accept(prober.dataset.inputs), INVERTED_QUANTILE)
    best = prober.scaled(prober.origin[None])[0]
    score, width = prober.ask(prober.rows(best[None]))[0, 1], 0.2
    while True:
        moves = (rng.random(len(best)) < 0.5) * rng.normal(0.0, width, len(best))
        tried = np.clip(best + moves, 0.0, 1.0)
        answer = prober.ask(prober.rows(tried[None]))[0, 1]
        if answer > score:
            best, score, width = tried, answer, min(0.4, width * 1.3)
        else:
            width = max(0.02, width * 0.95)
        if score >= goal and prober.reached < 0:
            prober.reached = prober.count - 1


def curve_at(stream: F64) -> int:
    return CURVE - 1 if len(stream) >= CURVE else -1


def _wide(prober: Prober) -> I64:
    """Attacked fields with room for a sweep."""
    steps = [prober.dataset.fields[j].step for j in prober.fields.tolist()]
    return prober.fields[prober.dataset.span[prober.fields] / steps >= WIDE_STEPS]


def _values(prober: Prober, j: int, count: int) -> F64:
    low, span = prober.dataset.low[j], prober.dataset.span[j]
    return np.linspace(low, low + span, count)


def _sweep(prober: Prober, j: int, count: int) -> None:
    for value in _values(prober, j, count):
        _ask(prober, np.array([j]), np.array([value]))


def _ask(prober: Prober, fields: I64, values: F64) -> None:
    row = prober.origin.copy()
    row[fields] = values
    prober.ask(row[None])
