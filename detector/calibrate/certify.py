"""Thresholds of a whole artefact folder: one per class and level, over every space, from clients that fitted nothing.

A client is judged by its largest statistic over everything that can throttle it, so that there is one budget per
client and day, however many models it uses. Certifying clients count with their last day, which carries in most state:
a live service does not start cold.
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
"""Thousandths of a tail length. Without trusted history they cap all thresholds; without any consumer they are the
thresholds. Round numbers above what calibrations on simulated clients gave; they promise nothing."""
SENSITIVITY = (1, 5, 10)
"""Numbers of top clients that are removed, and added, to see how much a threshold depends on them."""
COPY_VARIANTS_MIN = 6
"""Clients with fewer variants of one input may be alike by chance; with more, their evidence has many digits."""
MILLI = 1000


@dataclass(frozen=True, slots=True)
class Certification:
    """Thresholds of all classes, and what they rest on."""

    thresholds: I64  # (3 classes, 5 levels)
    certified: NDArray[np.bool_]  # (3, 5)
    promised: F64  # (3, 5)
    by_class: tuple[LevelThresholds, ...]  # each class's own order statistics
    days: DailyMaxima  # one entry per certifying client, over all spaces
    borrowed: tuple[bool, ...]  # (3,) whether the consumers' thresholds are the least

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
    """spaces : client-days of certifying clients, one entry per space. cold : they may hold attackers.

    A class with fewer clients than the loosest budget needs has at least the consumers' thresholds.
    """
    days = last_days(over_all(spaces))
    by_class = tuple(thresholds(days.statistic[days.client_class == k]) for k in range(CLASS_COUNT))
    limits = np.stack([own.thresholds for own in by_class])
    certified = np.array([own.certified for own in by_class])
    promised = np.array([own.promised for own in by_class])
    if not (days.client_class == CONSUMER).any():
        limits[CONSUMER] = DEFAULT_THRESHOLDS
    borrowed = tuple(not own.certified[1] and k != CONSUMER for k, own in enumerate(by_class))
    for k in np.flatnonzero(borrowed):
        limits[k] = np.maximum(limits[k], limits[CONSUMER])
    if cold:
        limits, certified, promised = np.minimum(limits, DEFAULT_THRESHOLDS), certified & False, np.ones_like(promised)
    limits[:, 0] = UNREACHABLE
    return Certification(limits, certified, promised, by_class, days, borrowed)


def class_parts(certification: Certification, fitting_clients: Sequence[int], *, cold: bool) -> tuple[ClassPart, ...]:
    """The certificate's part for each class. fitting_clients : (3,)."""
    days, parts = certification.days, []
    for k, name in enumerate(CLASSES):
        own = DailyMaxima._make(column[days.client_class == k] for column in days)
        parts.append(
            ClassPart(
                name=name,
                fitting_clients=fitting_clients[k],
                certifying_clients=int(certification.clients[k]),
                borrowed=certification.borrowed[k],
                alike=alike(own),
                levels=tuple(
                    _certified_level(certification, own.statistic, k, level, cold) for level in range(1, len(BUDGETS))
                ),
                tails=shift.tails(own),
            )
        )
    return tuple(parts)


def alike(days: DailyMaxima) -> int:
    """Number of clients that behaved exactly like another one, among those with COPY_VARIANTS_MIN variants of an input.

    Copies of one machine should count as one client. days : one entry per client.
    """
    varied = days.behaviour[days.variants >= COPY_VARIANTS_MIN]
    _, counts = np.unique(varied, return_counts=True)
    return int(counts[counts > 1].sum())


def _certified_level(certification: Certification, maxima: I64, k: int, level: int, cold: bool) -> CertifiedLevel:
    budget, rank = BUDGETS[level], 0 if cold else certification.by_class[k].ranks[level]
    low, high, at_most = rate_interval(len(maxima), rank)

    def moved(by: int) -> float | None:
        threshold = moved_threshold(maxima, level, by)
        return None if threshold is None else threshold / MILLI

    return CertifiedLevel(
        level=LEVELS[level],
        budget=budget,
        threshold=int(certification.thresholds[k, level]) / MILLI,
        certified=bool(certification.certified[k, level]),
        promised=float(certification.promised[k, level]),
        rate_low=low,
        rate_high=high,
        rate_at_most=at_most,
        confident=min(kept for kept in BUDGETS if at_most <= kept),
        without_top={str(top): moved(-top) for top in SENSITIVITY},
        with_more={str(top): moved(top) for top in SENSITIVITY},
    )


def over_all(spaces: Sequence[DailyMaxima]) -> DailyMaxima:
    """Client-days over all spaces, in order of (client, day): the largest of each space, rows added up.

    A client logged under two classes has the stricter one.
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
