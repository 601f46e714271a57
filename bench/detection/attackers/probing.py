"""What every attacker shares: a counted, recorded line to the model, and the box of plausible numbers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.detection.datasets import Dataset
from bench.detection.victim import Model
from models.rows import F64, I64

CLOSE = 0.25
"""How near an accepted application must be: a quarter of one field's plausible range, Euclidean over all fields."""


class SpentError(Exception):
    """The stream has its rows; the attack is over."""


@dataclass(slots=True)
class Prober:
    """One attacker. origin : (d,) the applicant it starts from. fields : (m,) those it changes: numeric, not blank.

    rounded : queries are moved to the fields' grids before they are sent. reached : the query at which the attack
    says that it has what it wants, -1 so far.
    """

    dataset: Dataset
    model: Model
    origin: F64
    rows_max: int
    rounded: bool
    fields: I64 = field(init=False)
    asked: list[F64] = field(default_factory=list)
    count: int = 0
    reached: int = -1

    def __post_init__(self) -> None:
        self.start_from(self.origin)

    def start_from(self, origin: F64) -> None:
        """Go on with another applicant."""
        self.origin = origin
        known = np.isfinite(origin[self.dataset.attackable])
        self.fields = self.dataset.attackable[known]

    def ask(self, rows: F64) -> F64:
        """Probabilities (k, 2) of rows (k, d). Raises SpentError where the budget ends."""
        rows = rows.astype(np.float64)
        if self.rounded:
            for j in self.dataset.attackable.tolist():
                rows[:, j] = self.dataset.rounded_field(j, rows[:, j])
        rows = rows[: self.rows_max - self.count]
        self.asked.append(rows)
        self.count += len(rows)
        if self.count >= self.rows_max:
            raise SpentError
        return self.model.predict_proba(rows)

    def scaled(self, rows: F64) -> F64:
        """The attacked fields of rows (k, d) in plausible ranges, 0 to 1: (k, m)."""
        low, span = self.dataset.low[self.fields], self.dataset.span[self.fields]
        inside: F64 = np.clip((rows[:, self.fields] - low) / span, 0.0, 1.0)
        return inside

    def rows(self, points: F64) -> F64:
        """The origin with its attacked fields at points (k, m), cut to 0..1: (k, d).

        A number that the attack left alone stays as it was, to the last bit: points are float32, as the toolbox's are.
        """
        points = np.clip(points, 0.0, 1.0)
        untouched = points.astype(np.float32) == self.scaled(self.origin[None]).astype(np.float32)
        moved = self.dataset.low[self.fields] + points.astype(float) * self.dataset.span[self.fields]
        made = np.repeat(self.origin[None], len(points), axis=0)
        made[:, self.fields] = np.where(untouched, self.origin[self.fields], moved)
        return made

    def stream(self) -> F64:
        """(n, d) everything asked so far."""
        return np.concatenate(self.asked) if self.asked else np.empty((0, len(self.origin)))


def accepted_at(prober: Prober, stream: F64) -> int:
    """First query that is accepted, for attacks whose steps are bounded; -1 if none."""
    return _first(prober.model.accept(stream) >= 0.5)


def evaded_at(prober: Prober, stream: F64) -> int:
    """First query that is accepted and close to the origin, for attacks that come nearer and nearer; -1 if none."""
    away = np.linalg.norm(prober.scaled(stream) - prober.scaled(prober.origin[None]), axis=1)
    return _first((prober.model.accept(stream) >= 0.5) & (away <= CLOSE))


def _first(hits: NDArray[np.bool_]) -> int:
    return int(np.argmax(hits)) if hits.any() else -1
