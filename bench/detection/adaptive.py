"""An attacker that adapts to refusals: oracle-guided adaptive rejection sampling around a decision-based walk.

After Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash 2023, "Stateful Defenses for Machine Learning Models Are Not Yet
Secure Against Black-box Attacks" (OARS): a refused query is drawn again from a wider proposal; answered ones let the
proposal shrink. The walk is HopSkipJump's: search for the boundary, estimate its normal, step, search again. The points
of the search are drawn at random inside the interval, so that they lie on no line.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.detection.attackers import families
from bench.detection.attackers.probing import CLOSE, Prober, SpentError
from bench.detection.datasets import Dataset
from bench.detection.victim import Model
from models.rows import F64

Judge = Callable[[F64, float, int], int]
"""(one input of d values, score, label) to the level (0-4) that stands after it; called once per query, in order."""

REFUSED_LEVEL = 2
ALERT_LEVEL = 3
"""From soft on a door makes itself felt; from hard on the SOC has an alert."""

PATIENCE = 50
"""Refusals in a row after which the attacker gives up: nothing it can draw is answered."""
RESAMPLES = 5
START_TRIES = 100
DIRECTIONS = 8
SCALE, SCALE_MIN, SCALE_MAX = 0.1, 0.02, 0.5
WIDER, NARROWER = 1.5, 0.98
SEARCH_UNTIL = 0.1
STEP_TRIES = 5


class Outcome(NamedTuple):
    """queries : sent. success_at : first answered query that was accepted and close (probing.CLOSE), -1 never.

    first_refusal, first_alert : first query that came back with at least REFUSED_LEVEL, ALERT_LEVEL, -1 never.
    nearest : best distance reached, in plausible ranges; infinite before the first accepted query.
    """

    queries: int
    success_at: int
    first_refusal: int
    first_alert: int
    nearest: float

    @property
    def succeeded_unseen(self) -> bool:
        """The goal was reached before any alert."""
        return self.success_at >= 0 and not 0 <= self.first_alert <= self.success_at


def attack(
    dataset: Dataset, model: Model, judge: Judge, rng: np.random.Generator, *, oracle: bool, rows_max: int = 1_000
) -> Outcome:
    """One walk from a declined applicant against a live judge.

    oracle : the attacker learns at once which query was refused (and gets no answer to it). Without, decisions arrive
    too late to be matched with queries: it gets all its answers and keeps to a proposal twice as wide from the start.
    """
    # One more than it sends: the prober breaks off inside the last query that it takes.
    prober = Prober(dataset, model, families.origin(dataset, model, rng), rows_max + 1, rounded=True)
    walk = _Walk(prober, judge, rng, oracle, SCALE if oracle else 2 * SCALE)
    with contextlib.suppress(SpentError):
        walk.run()
    return Outcome(walk.sent, walk.success_at, walk.first_refusal, walk.first_alert, walk.nearest)


@dataclass(slots=True)
class _Walk:
    """Points are attacked fields in plausible ranges, (m,)."""

    prober: Prober
    judge: Judge
    rng: np.random.Generator
    oracle: bool
    scale: float
    sent: int = 0
    success_at: int = -1
    first_refusal: int = -1
    first_alert: int = -1
    nearest: float = np.inf
    in_a_row: int = 0

    def run(self) -> None:
        """Raises SpentError at the end of the budget or of patience."""
        origin = self.prober.scaled(self.prober.origin[None])[0]
        point = self._start(len(origin))
        turn = 0
        while point is not None:
            turn += 1
            point = self._search(origin, point)
            normal = self._normal(point)
            length = np.linalg.norm(point - origin) / np.sqrt(turn)
            for _ in range(STEP_TRIES):
                if self._ask(stepped := np.clip(point + length * normal, 0.0, 1.0)):
                    point = stepped
                    break
                length /= 2

    def _ask(self, point: F64) -> bool | None:
        """Accepted or declined; None when an oracle shows that the query was refused."""
        row = self.prober.rows(point[None])
        accept = self.prober.ask(row)[0, 1]
        row = self.prober.asked[-1]
        level = self.judge(row[0], round(float(accept), 6), int(accept >= 0.5))
        number = self.sent
        self.sent += 1
        if level >= ALERT_LEVEL and self.first_alert < 0:
            self.first_alert = number
        if level >= REFUSED_LEVEL:
            self.first_refusal = number if self.first_refusal < 0 else self.first_refusal
            if self.oracle:
                return self._refused()
        self.in_a_row = 0
        self.scale = max(SCALE_MIN, self.scale * NARROWER) if self.oracle else self.scale
        if accept >= 0.5:
            away = float(np.linalg.norm(self.prober.scaled(row)[0] - self.prober.scaled(self.prober.origin[None])[0]))
            self.nearest = min(self.nearest, away)
            if away <= CLOSE and self.success_at < 0:
                self.success_at = number
        return bool(accept >= 0.5)

    def _refused(self) -> None:
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            raise SpentError
        self.scale = min(SCALE_MAX, self.scale * WIDER)

    def _start(self, fields: int) -> F64 | None:
        """An accepted point among random ones; None if there is none."""
        for _ in range(START_TRIES):
            if self._ask(point := self.rng.random(fields)):
                return point
        return None

    def _search(self, declined: F64, accepted: F64) -> F64:
        """An accepted point near the boundary between the two."""
        low, high = declined, accepted
        while np.linalg.norm(high - low) > SEARCH_UNTIL:
            answer = None
            for _ in range(RESAMPLES):
                middle = low + self.rng.uniform(0.3, 0.7, len(low)) * (high - low)
                if (answer := self._ask(middle)) is not None:
                    break
            if answer is None:
                break
            low, high = (low, middle) if answer else (middle, high)
        return high

    def _normal(self, point: F64) -> F64:
        """Direction of acceptance at the boundary, a unit vector; from answered queries only."""
        total = np.zeros(len(point))
        for _ in range(DIRECTIONS):
            for _ in range(RESAMPLES):
                drawn = self.rng.standard_normal(len(point))
                drawn /= np.linalg.norm(drawn)
                answer = self._ask(np.clip(point + self.scale * drawn, 0.0, 1.0))
                if answer is not None:
                    total += drawn if answer else -drawn
                    break
        return total / max(float(np.linalg.norm(total)), 1e-9)
