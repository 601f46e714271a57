"""Thresholds from benign clients that fitted nothing else, and what they promise: client-level split conformal.

The ceil((m + 1)(1 - beta))-th smallest of m exchangeable clients' daily maxima is exceeded by a new client with
probability at most beta (Vovk, Gammerman, Shafer 2005, ch. 2; Papadopoulos et al. 2002), averaged over calibrations.
For one calibration the rate is a draw from Beta(m + 1 - rank, rank) (Vovk 2012, "Conditional validity of inductive
conformal predictors"), if no maxima are equal; ties make it smaller.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from scipy.special import betaincinv, betaln, gammaln

from models.encoders.base import FieldTaken
from models.hashes import short_hash
from models.rows import I64

BUDGETS = (1.0, 1e-2, 1e-3, 1e-4, 1e-5)
"""False alarms per benign client-day, by level; level 0 is no decision."""
SLOPE_MIN_MILLI = 1_500
"""Least slope beyond the last order statistic, thousandths of a tail length per factor e, where it can be measured."""
SLOPE_UNKNOWN_MILLI = 3_333
"""The slope if it cannot be measured. For the shortest tail, .3 nats, it is one nat per factor e, as the likelihood
ratio alone would promise; for longer tails it errs on the quiet side."""
SLOPE_CLIENTS_MIN = 999
"""q99.9 needs this many."""


class LevelThresholds(NamedTuple):
    """By level (5,). thresholds : thousandths of a tail length. certified : whether the level's own budget is promised.

    ranks : the order statistic that the threshold lies above, 0 for none; promised : its budget, 1 for none.
    """

    thresholds: I64
    certified: tuple[bool, ...]
    ranks: tuple[int, ...]
    promised: tuple[float, ...]


def rank_of(budget: float, clients: int) -> int:
    """Which order statistic keeps the budget; more than `clients` if none does."""
    return math.ceil((clients + 1) * (1.0 - budget))


def thresholds(maxima: I64) -> LevelThresholds:
    """maxima : (m,) each certifying client's largest statistic over one day.

    A budget below 1/(m + 1) has no order statistic. Its threshold lies above the largest maximum, by the exponential
    tail that the maxima themselves show: it is not certified, and promises 1/(m + 1). m = 0 gives nothing but zeros.
    """
    m = len(maxima)
    ordered = np.sort(maxima)
    found = np.zeros(len(BUDGETS), np.int64)
    certified, ranks, promised = [False], [0], [1.0]
    for level, budget in enumerate(BUDGETS[1:], 1):
        rank = rank_of(budget, m)
        certified.append(0 < rank <= m)
        ranks.append(min(rank, m))
        promised.append(budget if certified[level] else 1.0 / (m + 1))
        if m:
            found[level] = ordered[ranks[level] - 1] + 1
        if m and not certified[level]:
            found[level] += round(tail_slope(ordered) * math.log(1.0 / (budget * (m + 1))))
    return LevelThresholds(found, tuple(certified), tuple(ranks), tuple(promised))


def tail_slope(ordered: I64) -> float:
    """Thousandths of a tail length per factor e in the upper tail. ordered : (m,) maxima, rising."""
    if len(ordered) < SLOPE_CLIENTS_MIN:
        return SLOPE_UNKNOWN_MILLI
    q99, q999 = (int(ordered[rank_of(budget, len(ordered)) - 1]) for budget in (1e-2, 1e-3))
    return max(SLOPE_MIN_MILLI, (q999 - q99) / math.log(10.0))


def rate_interval(clients: int, rank: int) -> tuple[float, float, float]:
    """(2.5 %, 97.5 %) quantiles and the one-sided 95 % bound of one calibration's true rate, Beta(m + 1 - rank, rank).

    Ties make the true rate smaller than the lower end; the upper ends always hold. rank 0 : nothing is known.
    """
    if rank < 1:
        return 0.0, 1.0, 1.0
    low, high, most = betaincinv(clients + 1 - rank, rank, (0.025, 0.975, 0.95)).tolist()
    return low, high, most


def chance_of_more(alarms: int, tested: int, clients: int, rank: int) -> float:
    """Probability that at least `alarms` of `tested` new clients exceed the order statistic, if all are exchangeable.

    Beta-binomial with (m + 1 - rank, rank): the rate itself is a draw, so a binomial test at the budget would reject
    correct certificates.
    """
    a, b = clients + 1 - rank, rank
    upper = alarms > tested * a / (a + b)
    k = np.arange(alarms, tested + 1) if upper else np.arange(0, alarms)
    chosen = gammaln(tested + 1) - gammaln(k + 1) - gammaln(tested - k + 1)
    tail = float(np.exp(chosen + betaln(k + a, tested - k + b) - betaln(a, b)).sum())
    return min(1.0, tail if upper else 1.0 - tail)


def holm(chances: Sequence[float]) -> list[float]:
    """Chances adjusted for their number, step down (Holm 1979), in the order given."""
    adjusted, least = [0.0] * len(chances), 0.0
    for step, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        least = max(least, min(1.0, (len(chances) - step) * chances[place]))
        adjusted[place] = least
    return adjusted


def moved_threshold(maxima: I64, level: int, by: int) -> int | None:
    """The level's threshold if -`by` of the largest maxima were absent, or if `by` more were above all others.

    None if the added clients would determine it, or if none is left.
    """
    m = len(maxima) + by
    if by <= 0:
        return int(thresholds(np.sort(maxima)[:m]).thresholds[level]) if m > 0 else None
    rank = rank_of(BUDGETS[level], m)
    return int(np.sort(maxima)[rank - 1]) + 1 if rank <= len(maxima) else None


class CertifiedLevel(msgspec.Struct, frozen=True):
    """One class's promise at one level.

    budget : the level's aim. threshold : tail lengths. certified : the budget itself is promised, on average over
    calibrations; otherwise the level is conditional, and `promised` is what is promised. rate_low, rate_high : 95 %
    interval of this calibration's rate; rate_at_most : its one-sided 95 % bound. confident : the tightest budget of
    the ladder that this bound keeps, 1 for none.
    without_top, with_more : the threshold if the highest 1, 5 or 10 clients were absent, or if as many more were above
    all others; null if these clients would determine it.
    """

    level: str
    budget: float
    threshold: float
    certified: bool
    promised: float
    rate_low: float
    rate_high: float
    rate_at_most: float
    confident: float
    without_top: dict[str, float | None]
    with_more: dict[str, float | None]


class Tail(msgspec.Struct, frozen=True):
    """A quantile among certifying clients' last days, and how many of them lie beyond it."""

    measure: str
    quantile: float
    value: float
    beyond: int
    clients: int


class ClassPart(msgspec.Struct, frozen=True):
    """One class. borrowed : too few clients for the loosest budget, so it has at least the consumers' thresholds.

    alike : certifying clients that behaved exactly like another one. tails : for the shift check.
    """

    name: str
    fitting_clients: int
    certifying_clients: int
    borrowed: bool
    alike: int
    levels: tuple[CertifiedLevel, ...]
    tails: tuple[Tail, ...]


class Removed(msgspec.Struct, frozen=True):
    """Clients excluded by hand from both halves. listed : in the file; found : in the history."""

    listed: int
    found: int
    reasons: dict[str, int]


class Grounds(msgspec.Struct, frozen=True):
    """What a certificate rests on. first, last : times of the history's records; certified_from, certified_to : first
    and last of certifying clients' last days. All RFC 3339 or dates, of the records, never of a wall clock. set_aside :
    suspicious fitting clients that were excluded from the fit."""

    history_sha256: str
    config_hash: str
    code_sha256: str
    engine_version: str
    first: str
    last: str
    certified_from: str
    certified_to: str
    records: int
    rows: int
    declared_classes: int
    set_aside: int


class Certificate(msgspec.Struct, frozen=True):
    """What the thresholds of one artefact folder promise, to whom, and on which grounds: docs/certificates.md.

    fields : of each model, by name. statement : the promise in words.
    """

    spaces: tuple[str, ...]
    classes: tuple[ClassPart, ...]
    fields: dict[str, tuple[FieldTaken, ...]]
    removed: Removed
    grounds: Grounds
    cold: bool
    warnings: tuple[str, ...]
    statement: str
    schema: Literal["probewatch.certificate/1"] = "probewatch.certificate/1"
    id: str = ""

    def identified(self) -> "Certificate":
        """With its id, 16 hex digits over everything else."""
        blank = msgspec.structs.replace(self, id="")
        content = msgspec.json.encode(blank, order="deterministic")
        return msgspec.structs.replace(self, id=short_hash(content))

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> "Certificate":
        """Raises ValueError if the text is no certificate, or if its id does not match its contents."""
        found = msgspec.json.decode(text, type=cls)
        if found.identified().id != found.id:
            raise ValueError("the certificate's id does not match its contents")
        return found
