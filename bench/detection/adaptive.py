"""An attacker that adapts to refusals (after Feng et al. 2023, "Stateful Defenses ... Are Not Yet Secure", OARS)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.detection.datasets import Dataset
from bench.detection.victim import Model
from models.rows import F64

Judge = Callable[[F64, float, int], int]
"""(one input of d values, score, label) to the level (0-4) that stands after it; called once per query, in order."""


class Outcome(NamedTuple):
    """queries : sent. success_at : query at which the goal was reached, -1 never. first_alert : first query whose
    level was at least the alert level, -1 never. nearest : best distance reached, in plausible ranges."""

    queries: int
    success_at: int
    first_alert: int
    nearest: float


def attack(
    dataset: Dataset, model: Model, judge: Judge, rng: np.random.Generator, *, oracle: bool, rows_max: int = 1_000
) -> Outcome:
    """One decision-based walk against a live judge. oracle : the attacker learns at once which query was refused."""
    raise NotImplementedError
