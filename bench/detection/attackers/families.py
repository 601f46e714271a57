"""All attack families, written out, and one stream of one of them."""

import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bench.detection.attackers import evasion, extraction, sweeps
from bench.detection.attackers.probing import Prober, SpentError, accepted_at, evaded_at
from bench.detection.datasets import Dataset
from bench.detection.victim import Model
from models.rows import F64


def _said(prober: Prober, stream: F64) -> int:
    """Attacks that know themselves when they are done."""
    return prober.reached


def _curve(prober: Prober, stream: F64) -> int:
    return sweeps.curve_at(stream)


class Family(NamedTuple):
    """attack : asks until it is done or SpentError. succeeded_at : (prober, stream) to a query number or -1."""

    attack: Callable[[Prober, np.random.Generator], None]
    succeeded_at: Callable[[Prober, F64], int]


REGISTRY: Mapping[str, Family] = {
    "hop-skip-jump": Family(evasion.hop_skip_jump, evaded_at),
    "boundary": Family(evasion.boundary, evaded_at),
    "simba": Family(evasion.simba, accepted_at),
    "square": Family(evasion.square, accepted_at),
    "zoo": Family(evasion.zoo, accepted_at),
    "sweep-1": Family(sweeps.one_field, _curve),
    "sweep-grid": Family(sweeps.grid, _curve),
    "sweep-noisy": Family(sweeps.noisy, _curve),
    "sweep-applicants": Family(sweeps.applicants, _curve),
    "inversion": Family(sweeps.inversion, _said),
    "membership": Family(evasion.membership, _said),
    "extraction-synthetic": Family(extraction.synthetic, extraction.stolen_at),
    "extraction-shuffled": Family(extraction.shuffled, extraction.stolen_at),
    "extraction-uncertainty": Family(extraction.uncertainty, extraction.stolen_at),
    "copycat": Family(extraction.copycat, extraction.stolen_at),
    "knockoff": Family(extraction.knockoff, extraction.stolen_at),
    "sign-opt": Family(evasion.sign_opt, evaded_at),
}


def origin(dataset: Dataset, model: Model, rng: np.random.Generator) -> F64:
    """A declined real applicant whose numbers lie within the plausible ranges."""
    inside = (dataset.inputs >= dataset.low) & (dataset.inputs <= dataset.low + dataset.span)
    usable = (inside | np.isnan(dataset.inputs))[:, dataset.attackable].all(axis=1)
    declined = np.flatnonzero(usable & (model.accept(dataset.inputs) < 0.5))
    return dataset.inputs[rng.choice(declined)]


def stream(
    name: str, dataset: Dataset, model: Model, seed: tuple[int, int], rows_max: int, rounded: bool
) -> tuple[F64, int]:
    """One attacker's queries (n, d) and the one at which it succeeded, -1 never. seed : of the run, and its number."""
    rng = np.random.default_rng(seed)
    family = REGISTRY[name]
    prober = Prober(dataset, model, origin(dataset, model, rng), rows_max, rounded)
    with contextlib.suppress(SpentError):
        family.attack(prober, rng)
    asked = prober.stream()
    return asked, family.succeeded_at(prober, asked)
