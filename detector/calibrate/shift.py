"""Shift check: do today's clients resemble those that were certified? A promise holds for exchangeable clients only.

Compared are the mix of classes and, for each class, the shares of clients beyond quantiles of the calibration: of the
statistic itself, whose body moves before its far tail does, of variants of one input, rows of a day, and novelty. A
shift must be both unlikely and large: among many clients small differences are always unlikely.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc, xlogy

from detector.calibrate.client_days import DailyMaxima
from models.artefacts.certificate import ClassPart, Tail, holm
from models.rows import CLASSES, F64

QUANTILES = {
    "statistic": (0.9, 0.99), "variants": (0.9, 0.99), "rows": (0.9, 0.99), "novelty": (0.1, 0.9, 0.99),
}  # fmt: skip
"""Those below one half are lower tails: an app that fills in usual values makes clients more alike."""
TAIL_CLIENTS_MIN = 100
"""A class with fewer clients is not compared."""
CHANCE_MAX = 0.01
FACTOR_MIN = 1.25
"""A smaller change of a share moves the rate by about as much, which the certificate's interval covers."""
MIX_FACTOR_MIN = 1.5


class Shift(NamedTuple):
    """One comparison. then, now : shares of clients (for the mix: of the class that changed most). chance : of a change
    at least as large without a shift, adjusted for all comparisons (Holm)."""

    client_class: str
    measure: str
    then: float
    now: float
    chance: float
    shifted: bool


def tails(days: DailyMaxima) -> tuple[Tail, ...]:
    """Quantiles of one class that a certificate stores. days : one entry per client."""
    found = []
    for name, values, quantile in _measures(days):
        if len(values) >= TAIL_CLIENTS_MIN:
            value = float(np.quantile(values, quantile, method="higher"))
            found.append(Tail(name, quantile, value, _beyond(values, quantile, value), len(values)))
    return tuple(tail for before, tail in zip((None, *found), found, strict=False) if not _same(before, tail))


def compare(parts: Sequence[ClassPart], days: DailyMaxima) -> list[Shift]:
    """All comparisons for which both sides have clients. days : one entry per client, of all classes."""
    mix = _mix(parts, days)
    found = [mix] if mix is not None else []
    for k, part in enumerate(parts):
        own = DailyMaxima._make(column[days.client_class == k] for column in days)
        now = {(name, quantile): values for name, values, quantile in _measures(own)}
        for tail in part.tails:
            values = now[tail.measure, tail.quantile]
            if len(values):
                found.append(_tail(part.name, tail, values))
    adjusted = holm([one.chance for one in found])
    return [
        one._replace(chance=chance, shifted=one.shifted and chance < CHANCE_MAX)
        for one, chance in zip(found, adjusted, strict=True)
    ]


def _measures(days: DailyMaxima) -> list[tuple[str, F64, float]]:
    """(name, values, quantile); clients without a value are left out."""
    columns = {
        "statistic": days.statistic / 1000,
        "variants": days.variants,
        "rows": days.rows,
        "novelty": days.novelty,
    }
    known = {name: column[~np.isnan(column.astype(float))].astype(float) for name, column in columns.items()}
    return [(name, values, quantile) for name, values in known.items() for quantile in QUANTILES[name]]


def _beyond(values: F64, quantile: float, value: float) -> int:
    return int((values < value).sum() if quantile < 0.5 else (values > value).sum())


def _same(before: Tail | None, tail: Tail) -> bool:
    """Counts are coarse: two quantiles may have one value, which is compared once."""
    return before is not None and (before.measure, before.value) == (tail.measure, tail.value)


def _tail(name: str, tail: Tail, values: F64) -> Shift:
    beyond = _beyond(values, tail.quantile, tail.value)
    then, now = tail.beyond / tail.clients, beyond / len(values)
    table = np.array([[tail.beyond, tail.clients - tail.beyond], [beyond, len(values) - beyond]], float)
    large = (beyond + 1) / (len(values) + 1) * (tail.clients + 1) / (tail.beyond + 1)
    shifted = max(large, 1 / large) >= FACTOR_MIN
    side = "<" if tail.quantile < 0.5 else ">"
    return Shift(name, f"{tail.measure} {side} {tail.value:g}", then, now, _unlikely(table), shifted)


def _mix(parts: Sequence[ClassPart], days: DailyMaxima) -> Shift | None:
    then = np.array([part.certifying_clients for part in parts], float)
    now = np.bincount(days.client_class, minlength=len(CLASSES)).astype(float)
    if not (then.sum() and now.sum()):
        return None
    moved = np.log((1 + now) / (1 + now.sum()) * (1 + then.sum()) / (1 + then)) * (then + now > 0)
    most = int(np.argmax(np.abs(moved)))
    large = bool(abs(moved[most]) >= np.log(MIX_FACTOR_MIN))
    shares = float(then[most] / then.sum()), float(now[most] / now.sum())
    return Shift(CLASSES[most], "share of all clients", *shares, _unlikely(np.stack([then, now])), large)


def _unlikely(table: F64) -> float:
    """p-value of the G test (Woolf 1957) that both rows have the same distribution. table : (2, k) counts."""
    table = table[:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    g = 2.0 * float((xlogy(table, table) - xlogy(table, expected)).sum())
    return float(chdtrc(table.shape[1] - 1, max(0.0, g))) if table.shape[1] > 1 else 1.0
