"""From what detectors declare and history counted to the integer tables that the fold reads.

Processes, in the order of `weigh` (models/kernels/fold/fold.py): joint profiles and single features per family (maximum
over families), the joint ones summed over families, those of the client itself, and plain counts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detector.detectors import REGISTRY, ClientBet, Detector, Profile
from detector.detectors.extraction import novelty_shares
from models.artefacts.reference import Reference
from models.artefacts.store import ArtefactError
from models.kernels.layout import (
    BUCKETS,
    CLASS_COUNT,
    CLIENT_LEVELS,
    CLIENT_PROCESSES,
    COUNTS,
    FEATURES,
    LEVELLED,
    LEVELS,
    NO_EDIT,
    NO_SCORE,
    Nulls,
)
from models.rows import CLASSES, F64, I32, I64, UNIT

Ints = TypeVar("Ints", I32, I64)

NO_OPINION = {"flip": 2, "edit": NO_EDIT, "margin": 2, "record": NO_SCORE, "equal_step": 2}
"""Levels that say nothing either way. "No direction yet" is not among them: for `collinear` it is a fact too."""
LEVELS_OF = {"flip": 3, "edit": LEVELS, "collinear": 3, "margin": 3, "record": 4, "step": 7, "equal_step": 3}
PRIOR_ROWS = 50.0
"""A class's own counts weigh against the pooled ones as this many variants."""


@dataclass(frozen=True, slots=True)
class Process:
    """One bet that is followed through time. feature : its name in alerts; "" of joint profiles, which name several."""

    name: str
    detector: str
    feature: str
    profile: int  # index of the joint profile it stands on, -1 if none
    of_family: bool
    meaning: str  # "" of a single feature, which has words of its own
    unit: str = "nats"


def _processes() -> tuple[tuple[Profile, ...], tuple[Process, ...]]:
    owned = [(profile, detector.name) for detector in REGISTRY for profile in detector.profiles]
    owned.sort(key=lambda pair: not pair[0].joint)  # stable: joint ones first
    joint = [(place, *pair) for place, pair in enumerate(owned) if pair[0].joint]
    processes = [Process(one.name, detector, "", place, True, one.meaning) for place, one, detector in joint]
    for profile, detector in owned[len(joint) :]:
        processes.append(Process(profile.name, detector, next(iter(profile.bets)), -1, True, ""))
    for place, profile, detector in joint:
        meaning = f"{profile.meaning}, all families"
        processes.append(Process(f"{profile.name}_sum", detector, "", place, True, meaning))
    own = {process.name: process for detector in REGISTRY for process in _of_client(detector)}
    processes += [own[name] for name in (*CLIENT_PROCESSES, *COUNTS)]
    twice = sorted(name for name, count in Counter(process.name for process in processes).items() if count > 1)
    if twice:
        raise ValueError(f"processes of one name: {', '.join(twice)}")
    return tuple(profile for profile, _ in owned), tuple(processes)


def _of_client(detector: Detector) -> Iterator[Process]:
    for bet in detector.client_bets:
        yield Process(bet.process, detector.name, bet.feature or bet.process, -1, False, bet.meaning)
    for name, meaning, unit in detector.counts:
        yield Process(name, detector.name, name, -1, False, meaning, unit)


PROFILES, PROCESSES = _processes()
CLIENT_BETS: tuple[ClientBet, ...] = tuple(
    sorted(
        (bet for detector in REGISTRY for bet in detector.client_bets),
        key=lambda bet: CLIENT_PROCESSES.index(bet.process),
    )
)
FAMILY_PROCESSES = len(PROFILES)
JOINT = sum(profile.joint for profile in PROFILES)
COLUMNS = {
    "bets": CLIENT_PROCESSES,
    "wealth": tuple(profile.name for profile in PROFILES),
    "parts": tuple(profile.name for profile in PROFILES[:JOINT]),
}
"""Columns of a stored block that have a part for each process: which. Blocks carry these names (engine.dump_block)."""


def mnats(nats: F64) -> I32:
    return np.rint(1000.0 * nats).astype(np.int32)


def _smooth(p: F64, levels: int) -> F64:
    smoothed: F64 = 0.9 * p + 0.1 / levels
    return smoothed


def _shares(counts: F64, pooled: F64, levels: int) -> F64:
    """Shares of levels in a class, drawn to the pooled ones where the class has few rows. counts : (levels,)."""
    prior = _smooth(pooled / max(1.0, pooled.sum()), levels)
    return _smooth((counts + PRIOR_ROWS * prior) / (counts.sum() + PRIOR_ROWS), levels)


def family_ratios(counts: I64) -> I32:
    """Log-likelihood ratios of features against benign variants, milli-nats.

    counts : (3 classes, BUCKETS, LEVELLED, LEVELS) of benign variants. Returns the same with an axis for the
    processes of a family. Levels that mean "no opinion" are worth 0 and leave the others' shares alone.
    """
    ratios = np.zeros((CLASS_COUNT, BUCKETS, LEVELLED, LEVELS, FAMILY_PROCESSES))
    for j, feature in enumerate(FEATURES[:LEVELLED]):
        levels = [level for level in range(LEVELS_OF[feature]) if level != NO_OPINION.get(feature)]
        for client_class, bucket in np.ndindex(CLASS_COUNT, BUCKETS):
            pooled = counts[:, bucket, j][:, levels].sum(axis=0).astype(float)
            if pooled.sum() < PRIOR_ROWS:  # hardly anybody gets this far: lean on all buckets
                pooled = pooled + counts[:, :, j][:, :, levels].sum(axis=(0, 1))
            null = _shares(counts[client_class, bucket, j, levels].astype(float), pooled, len(levels))
            for p, profile in enumerate(PROFILES):
                if feature in profile.bets:
                    attack = _attack(profile, feature, levels)
                    ratios[client_class, bucket, j, levels, p] = np.log(attack) - np.log(null)
    return mnats(ratios)


def _attack(profile: Profile, feature: str, levels: list[int]) -> F64:
    weights = np.array([profile.bets[feature].get(level, 0.0) for level in levels])
    attack: F64 = 0.98 * weights / weights.sum() + 0.02 / len(levels)
    return attack


def field_ratios(counts: I64) -> I32:
    """The same for *which* field changed: (3, f + 1) counts, the last for "more than three" -> (3, f + 1, processes).

    An attacker turns half of the time the fields that people change too, and half of the time any field.
    """
    f = counts.shape[1] - 1
    ratios = np.zeros((CLASS_COUNT, f + 1, FAMILY_PROCESSES))
    if f == 0:
        return mnats(ratios)
    pooled = counts.sum(axis=0).astype(float)
    for client_class in range(CLASS_COUNT):
        null = _shares(counts[client_class].astype(float), pooled, f + 1)
        for p, profile in enumerate(PROFILES):
            if "field" in profile.bets:
                some, many = profile.bets["field"].get(0, 0.0), profile.bets["field"].get(1, 0.0)
                single = 0.5 / f + 0.5 * null[:f] / null[:f].sum()
                attack = np.append(some * single, many) / (some + many)
                ratios[client_class, :, p] = np.log(0.98 * attack + 0.02 / (f + 1)) - np.log(null)
    return mnats(ratios)


def rarities(changed: I64) -> I32:
    """Surprise of a change in each field, milli-nats: (3, f) changed rows -> (3, f)."""
    f = changed.shape[1]
    if f == 0:
        return np.zeros((CLASS_COUNT, 0), np.int32)
    pooled = changed.sum(axis=0).astype(float)
    return mnats(
        -np.log(
            np.stack([_shares(changed[client_class].astype(float), pooled, f) for client_class in range(CLASS_COUNT)])
        )
    )


def client_ratios(counts: I64, exponents: F64) -> I32:
    """Log-likelihood ratios of what clients do as a whole, milli-nats.

    counts : (3, processes, BUCKETS, CLIENT_LEVELS) of benign distinct rows. exponents : (3,) for `novelty_robust`,
    whose null is not everybody's rows but those of the class's oddest ordinary client.
    """
    ratios = np.zeros((CLASS_COUNT, len(CLIENT_BETS), BUCKETS, CLIENT_LEVELS))
    for p, stake in enumerate(CLIENT_BETS):
        levels = len(stake.attack[0])
        for client_class, bucket in np.ndindex(CLASS_COUNT, BUCKETS):
            attack = np.array(stake.attack[min(bucket, len(stake.attack) - 1)])
            if stake.process == "novelty_robust":
                null = np.array(novelty_shares((float(exponents[client_class]),)))
            else:
                null = _client_null(counts[:, p, :, :levels], client_class, bucket)
            ratios[client_class, p, bucket, :levels] = _log_ratio(attack, null, stake.given or levels, stake.null_min)
    return mnats(ratios)


def _log_ratio(attack: F64, null: F64, group: int, null_min: float) -> F64:
    """log q / p of outcomes within groups; attack, null : (levels,) weights."""
    q, p = attack.reshape(-1, group), null.reshape(-1, group)
    q = 0.98 * q / q.sum(axis=1, keepdims=True) + 0.02 / group
    p = np.maximum(p / p.sum(axis=1, keepdims=True), null_min)
    ratio: F64 = (np.log(q) - np.log(p / p.sum(axis=1, keepdims=True))).reshape(-1)
    return ratio


def _client_null(counts: I64, client_class: int, bucket: int) -> F64:
    """Shares of outcomes in a class and bucket; where few rows are known, drawn to those of all buckets and classes."""
    everybody = counts.sum(axis=(0, 1)) + 0.5
    own = counts[client_class].sum(axis=0) + PRIOR_ROWS * everybody / everybody.sum()
    here = counts[client_class, bucket] + PRIOR_ROWS * own / own.sum()
    shares: F64 = here / here.sum()
    return shares


def nulls(reference: Reference, reach: float, agreement_min: int, decision_threshold: float | None) -> Nulls:
    """The fold's tables, mapped to today's processes by name.

    A process that the artefacts do not have is off until the next calibration: its evidence never counts, and that of
    all others and their thresholds stay as they are. A process that is gone is left out: thresholds then promise no
    less. Raises ArtefactError if the artefacts were fitted for other processes of the client than kernels compute.
    """
    names, fitted = tuple(process.name for process in PROCESSES), reference.processes
    own = tuple(process.name for process in PROCESSES if not process.of_family)
    if fitted[-len(own) :] != own:
        raise ArtefactError(
            "the artefacts were fitted by a version with other kernels; run `probewatch calibrate` again"
        )
    families = fitted[: reference.family.shape[-1]]
    return Nulls(
        family=_by_name(reference.family, families, COLUMNS["wealth"]),
        field=_by_name(reference.field, families, COLUMNS["wealth"]),
        rarity=reference.rarity,
        client=reference.client,
        novelty=reference.novelty,
        tail=_by_name(reference.tail, fitted, names),
        tail_scale=_by_name(reference.tail_scale, fitted, names),
        growth=reference.growth,
        thresholds=reference.thresholds,
        drift=reference.drift,
        low_margin=reference.low_margin,
        joint=JOINT,
        reach2=int((reach * UNIT) ** 2),
        agreement_min=agreement_min,
        decision_threshold=0.5 if decision_threshold is None else float(decision_threshold),
    )


def not_fitted(reference: Reference) -> frozenset[str]:
    """Detectors with processes that are off, since the artefacts do not have them."""
    return frozenset(process.detector for process in PROCESSES if process.name not in reference.processes)


def _by_name(table: Ints, fitted: Sequence[str], names: Sequence[str]) -> Ints:
    """(..., fitted) to (..., names); 0 where a name was not fitted."""
    if tuple(fitted) == tuple(names):
        return table
    mapped = np.zeros((*table.shape[:-1], len(names)), table.dtype)
    for place, name in enumerate(names):
        if name in fitted:
            mapped[..., place] = table[..., fitted.index(name)]
    return mapped


assert len(CLASSES) == CLASS_COUNT and len(CLIENT_BETS) == len(CLIENT_PROCESSES)
