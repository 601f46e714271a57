"""Attackers, really run against the trained model: raw query streams, and how they hide in a log."""

from typing import NamedTuple

import numpy as np

from bench.detection.datasets import Dataset
from bench.detection.log import Log
from bench.detection.victim import Model
from models.rows import F64, I64

FAMILIES: tuple[str, ...] = (
    "hop-skip-jump",
    "boundary",
    "simba",
    "square",
    "zoo",
    "sweep-1",
    "sweep-grid",
    "sweep-noisy",
    "sweep-applicants",
    "inversion",
    "membership",
    "extraction-synthetic",
    "extraction-shuffled",
    "extraction-uncertainty",
    "copycat",
    "knockoff",
    "sign-opt",
)
HELD_OUT = "sign-opt"
"""Only tried to run while anything was tuned; its figures are taken once, at the end."""


class Streams(NamedTuple):
    """Query streams of one family. inputs : one (n_i, d) matrix per victim, in order.

    success_at : (streams,) first query at which the attack has reached its own stated goal, -1 if never.
    """

    family: str
    inputs: list[F64]
    success_at: I64


class Budget(NamedTuple):
    """victims : streams, each from another start row. rows_max : queries after which a stream is cut.

    rounded : the attacker rounds every query to the fields' grids before sending it.
    """

    victims: int
    rows_max: int
    rounded: bool = False


class Disguise(NamedTuple):
    """dummies : benign rows of other people per probe. accounts : clients that share one stream, in turn.

    days : the probes are spread evenly over so many days, the first being first_day.
    """

    dummies: int = 0
    accounts: int = 1
    days: int = 1
    first_day: int = 0


def run(name: str, dataset: Dataset, model: Model, rng: np.random.Generator, budget: Budget) -> Streams:
    """Run one family; from the cache under out/bench/cache where code, data and arguments are the same."""
    raise NotImplementedError


def disguise(streams: Streams, dataset: Dataset, model: Model, rng: np.random.Generator, how: Disguise) -> Log:
    """One log of all streams: client i * accounts + j is the j-th account of stream i; kinds = (family,); consumers."""
    raise NotImplementedError
