"""Benign clients of a scoring service: real people, and every look-alike of an attack that is known to be hard.

Nothing here knows the detectors. Shares are stated beside their reason.
"""

from collections.abc import Mapping

import numpy as np

from bench.detection.datasets import Dataset
from bench.detection.log import Log
from bench.detection.victim import Model

KINDS: Mapping[str, int] = {
    "ordinary": 0,
    "re-quoter": 0,
    "shopper": 0,
    "what-if": 0,
    "retry storm": 0,
    "returning": 0,
    "broker": 1,
    "templated broker": 1,
    "health check": 2,
    "re-scoring": 2,
    "load test": 2,
    "batch": 2,
}
"""Kinds of clients and their class (index into CLASSES)."""


def sizes(consumers: int, brokers: int, systems: int) -> dict[str, int]:
    """Clients per kind, by the stated shares within each class."""
    raise NotImplementedError


def population(dataset: Dataset, model: Model, sizes: Mapping[str, int], days: int, rng: np.random.Generator) -> Log:
    """Clients of each kind over this many days; each active on one or several of them."""
    raise NotImplementedError
