"""Thresholds of a whole artefact folder: one per class and level, over every space, from clients that fitted nothing.

A client is held against its largest statistic over everything that can throttle it, so that the budget is one per
client and day, however many models it uses. Certifying clients count with their last day, the one with most state
carried in: a service never starts cold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.calibrate import shift
from detector.calibrate.client_days import DailyMaxima
from detector.calibrate.fit import UNREACHABLE
from detector.events.finding import LEVELS
from models.artefacts.certificate import (
    BUDGETS,
    CertifiedLevel,
    ClassPart,
    LevelThresholds,
    moved_threshold,
    rate_interval,
    thresholds,
)
from models.artefacts.reference import Reference
from models.kernels.layout import CLASS_COUNT
from models.rows import CLASSES, F64, I64, U64

CONSUMER = 0
DEFAULT_THRESHOLDS = (UNREACHABLE, 2_000, 8_000, 12_000, 16_000)
"""Where nothing can be learned: without trusted history no threshold lies above these, and without any consumer they
are these (thousandths of a tail length). Round numbers above what calibrations on simulated clients gave; they promise
nothing."""
SENSITIVITY = (1, 5, 10)
"""As many clients at the top are imagined away, and added."""
COPY_VARIANTS_MIN = 6
"""A client with fewer variants of one input may well do what another does; with more, evidence has many digits."""
MILLI = 1000


@dataclass(frozen=True, slots=True)
class Certification:
    """thresholds, certified, promised : (3 classes, 5 levels). by_class : each class's own order statistics. days : one
    entry per certifying client, over all spaces. borrowed : classes held to the consumers' thresholds at least."""

    thresholds: I64
    certified: NDArray[np.bool_]
    promised: F64
    by_class: tuple[LevelThresholds, ...]
    days: DailyMaxima
    borrowed: tuple[bool, ...]

    @property
    def clients(self) -> I64:
        """(3,) certifying clients."""
        return np.bincount(self.days.client_class, minlength=CLASS_COUNT).astype(np.int64)

    def applied(self, reference: Reference) -> Reference:
        """A space's reference with these thresholds."""
        return replace(
            reference,
            thresholds=self.thresholds,
            certified=self.certified,
            promised=self.promised,
            certifying_clients=self.clients,
        )


def certify(spaces: Sequence[DailyMaxima], *, cold: bool = False) -> Certification:
    """spaces : client-days of certifying clients, one entry per space. cold : they are not known to be benign.

    A class with fewer clients than the loosest budget needs is held to the consumers' thresholds at least.
    """
    days = last_days(over_all(spaces))
    by_class = tuple(thresholds(days.statistic[days.client_class == k]) for k in range(CLASS_COUNT))
    found = np.stack([own.thresholds for own in by_class])
    certified = np.array([own.certified for own in by_class])
    promised = np.array([own.promised for own in by_class])
    if not (days.client_class == CONSUMER).any():
        found[CONSUMER] = DEFAULT_THRESHOLDS
    borrowed = tuple(not own.certified[1] and k != CONSUMER for k, own in enumerate(by_class))
    for k in np.flatnonzero(borrowed):
        found[k] = np.maximum(found[k], found[CONSUMER])
    if cold:
        found, certified, promised = np.minimum(found, DEFAULT_THRESHOLDS), certified & False, np.ones_like(promised)
    found[:, 0] = UNREACHABLE
    return Certification(found, certified, promised, by_class, days, borrowed)


def class_parts(found: Certification, fitting_clients: Sequence[int], *, cold: bool) -> tuple[ClassPart, ...]:
    """The certificate's part on each class. fitting_clients : (3,)."""
    parts = []
    for k, name in enumerate(CLASSES):
        own = DailyMaxima._make(column[found.days.client_class == k] for column in found.days)
        levels = tuple(_certified_level(found, own.statistic, k, level, cold) for level in range(1, len(BUDGETS)))
        clients = int(found.clients[k])
        parts.append(
            ClassPart(name, fitting_clients[k], clients, found.borrowed[k], alike(own), levels, shift.tails(own))
        )
    return tuple(parts)


def alike(days: DailyMaxima) -> int:
    """How many clients did exactly what another one did, among those who varied one input often enough to tell.

    Copies of one machine are one client for a calibration that counts clients. days : one entry per client.
    """
    varied = days.behaviour[days.variants >= COPY_VARIANTS_MIN]
    _, counts = np.unique(varied, return_counts=True)
    return int(counts[counts > 1].sum())


def _certified_level(found: Certification, maxima: I64, k: int, level: int, cold: bool) -> CertifiedLevel:
    budget, rank = BUDGETS[level], 0 if cold else found.by_class[k].ranks[level]
    low, high, at_most = rate_interval(len(maxima), rank)

    def moved(by: int) -> float | None:
        threshold = moved_threshold(maxima, level, by)
        return None if threshold is None else threshold / MILLI

    return CertifiedLevel(
        level=LEVELS[level],
        budget=budget,
        threshold=int(found.thresholds[k, level]) / MILLI,
        certified=bool(found.certified[k, level]),
        promised=float(found.promised[k, level]),
        rate_low=low,
        rate_high=high,
        rate_at_most=at_most,
        confident=min(kept for kept in BUDGETS if at_most <= kept),
        without_top={str(top): moved(-top) for top in SENSITIVITY},
        with_more={str(top): moved(top) for top in SENSITIVITY},
    )


def over_all(spaces: Sequence[DailyMaxima]) -> DailyMaxima:
    """Client-days over all spaces, in order of (client, day): the largest of each space, rows added up.

    The class is that of the strictest space, should a client ever be logged under two.
    """
    joined = DailyMaxima._make(np.concatenate(column) for column in zip(*spaces, strict=True))
    order = np.lexsort((joined.day, joined.client))
    joined = DailyMaxima._make(column[order] for column in joined)
    begins = _begins(joined.client, joined.day)
    if len(begins) == len(order):
        return joined
    return DailyMaxima(
        client=joined.client[begins],
        client_class=np.minimum.reduceat(joined.client_class, begins),
        day=joined.day[begins],
        statistic=np.maximum.reduceat(joined.statistic, begins),
        variants=np.maximum.reduceat(joined.variants, begins),
        rows=np.add.reduceat(joined.rows, begins),
        novelty=np.fmax.reduceat(joined.novelty, begins),
        behaviour=np.bitwise_xor.reduceat(joined.behaviour, begins),
        drift=np.maximum.reduceat(joined.drift, begins),
    )


def last_days(days: DailyMaxima) -> DailyMaxima:
    """Each client's last day. days : in order of (client, day)."""
    if not len(days.client):
        return days
    last = np.r_[_begins(days.client)[1:], len(days.client)] - 1
    return DailyMaxima._make(column[last] for column in days)


def _begins(*keys: I64 | U64) -> NDArray[np.intp]:
    """Where each run of equal keys begins."""
    changes = np.zeros(max(0, len(keys[0]) - 1), np.bool_)
    for key in keys:
        changes |= key[1:] != key[:-1]
    return np.r_[0, np.flatnonzero(changes) + 1] if len(keys[0]) else np.zeros(0, np.intp)


assert len(DEFAULT_THRESHOLDS) == len(BUDGETS)
