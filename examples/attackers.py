"""Two attackers of the loan gateway, as one finds them: a published attack with its defaults, and a patient person.

Both send one request at a time, repeat a refused request a few times, and give up when the gateway keeps refusing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
from numpy.typing import NDArray

from examples.loan_gateway.model import LABELS, NUMBERS, Features

F64 = NDArray[np.float64]

PATIENCE = 10
"""Refusals in a row after which an attacker gives up."""


class GaveUpError(Exception):
    """The gateway refused PATIENCE times in a row."""


@dataclass(slots=True)
class Prober:
    """An HTTP client that counts. served_first : rows answered before the first refusal."""

    url: str
    client_id: str
    kind: str
    served: int = 0
    served_first: int = 0
    refused: int = 0
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def ask(self, features: Features) -> str:
        """The label the gateway answers. Raises GaveUpError."""
        for _ in range(PATIENCE):
            answer = self.http.post(f"{self.url}/v1/score", json=features, headers={"X-Client-Id": self.client_id})
            if answer.status_code == 200:
                self.served += 1
                self.served_first += self.refused == 0
                return str(answer.json()["label"])
            if answer.status_code != 429:
                raise RuntimeError(f"gateway answered {answer.status_code}: {answer.text}")
            self.refused += 1
        raise GaveUpError


@dataclass(frozen=True, slots=True)
class Box:
    """The attacker's idea of plausible numbers: each numeric field from low to high, scaled to 0..1."""

    low: F64
    high: F64

    @classmethod
    def of(cls, people: Sequence[Features]) -> "Box":
        table = np.array([[person[name] or 0 for name in NUMBERS] for person in people], float)
        low, high = np.quantile(table, [0.0, 0.99], axis=0)
        return cls(low, np.maximum(high, low + 1))

    def scaled(self, person: Features) -> F64:
        values = np.array([person[name] or 0 for name in NUMBERS], float)
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)

    def application(self, point: F64, victim: Features) -> Features:
        """The victim's application with the point's numbers, unrounded as ART leaves them; categories stay."""
        numbers = self.low + point.astype(float) * (self.high - self.low)
        return victim | dict(zip(NUMBERS, numbers.tolist(), strict=True))


@dataclass(slots=True)
class HopSkipJump:
    """ART's HopSkipJump with its default budget: find a nearly identical application that is accepted.

    nearest : scaled distance from the victim to the nearest application accepted so far; infinite before the first.
    """

    victim: Features
    box: Box
    ask: Callable[[Features], str]
    nearest: float = np.inf

    def run(self) -> None:
        """Raises GaveUpError when the gateway stops answering."""
        # Imported here: ART takes two seconds and is needed by this attacker only.
        from art.attacks.evasion import HopSkipJump as ArtHopSkipJump
        from art.estimators.classification import BlackBoxClassifier

        origin = self.box.scaled(self.victim)
        classifier = BlackBoxClassifier(self._predict, (len(origin),), nb_classes=2, clip_values=(0.0, 1.0))
        ArtHopSkipJump(classifier, verbose=False).generate(origin[None].astype(np.float32))

    def _predict(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """One-hot answers, shape (n, 2), one request per row."""
        origin = self.box.scaled(self.victim)
        answers = np.zeros((len(points), 2), np.float32)
        for i, point in enumerate(points):
            label = self.ask(self.box.application(point, self.victim))
            answers[i, LABELS.index(label)] = 1
            if label == "accept":
                self.nearest = min(self.nearest, float(np.linalg.norm(point - origin)))
        return answers


@dataclass(slots=True)
class FormulaSweep:
    """How does income trade against credit history? One real application, one field changed at a time, round values."""

    victim: Features
    ask: Callable[[Features], str]
    answers: dict[tuple[int, int], str] = field(default_factory=dict)

    def grid(self) -> Iterator[tuple[int, int]]:
        """(annual_income, earliest_credit_line) in a snake: 20 incomes, for each 21 years forth or back."""
        years = range(1975, 2016, 2)
        for turn, income in enumerate(range(20_000, 120_000, 5_000)):
            for year in years if turn % 2 == 0 else reversed(years):
                yield income, year

    def run(self) -> None:
        """Raises GaveUpError when the gateway stops answering."""
        for income, year in self.grid():
            self.answers[income, year] = self.ask(self.victim | {"annual_income": income, "earliest_credit_line": year})
