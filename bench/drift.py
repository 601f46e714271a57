"""Drift on simulated traffic: how often ordinary months alarm, how soon a change is seen, what a row costs.

    python -m bench.drift [--months 40] [--trials 20]

Ordinary traffic is not easy: 1,500 clients whose rows are alike, activity with a heavy tail, one broker with a tenth of
all rows, nights at a third and weekends at half of the volume, hours that vary by a fifth, evenings with other inputs.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detector.drift import fold as drift
from detector.events.finding import Event
from detector.frame import RowFrame
from models.artefacts.population import CLIENT_ROWS_MAX, Population, fit_population
from models.rows import F64, FLAG_REFUSED, I16, UNIT, Rows, blank_rows
from streams.config.config import Config

HOUR_MS = 3_600_000
BEGIN_MS = 1_735_776_000_000  # a Thursday
DIM = 12
CLIENTS = 1_500
ROWS_AN_HOUR = 500
BROKER_SHARE = 0.1
LEARNED_H = 24 * 8


class Encoder(NamedTuple):
    dim: int = DIM


ENCODER = Encoder()


@dataclass(frozen=True)
class Model:
    population: Population
    model: str = "loan"
    space: str = "loan@simulated"
    encoder: Encoder = ENCODER


class Change(NamedTuple):
    """From an hour on. score : in standard deviations of rows. app : share of clients that send other inputs.

    refused : more refusals, as a share. volume : factor.
    """

    name: str
    score: float = 0.0
    app: float = 0.0
    refused: float = 0.0
    volume: float = 1.0


CHANGES = (
    Change("score +.5 deviations", score=0.5),
    Change("score -.2 deviations", score=-0.2),
    Change("a new app, 20 % of clients", app=0.2),
    Change("a new app, 5 % of clients", app=0.05),
    Change("refusals 2 % -> 5 %", refused=0.03),
    Change("volume doubled", volume=2.0),
    Change("volume halved", volume=0.5),
)


class Traffic:
    """One model's clients and hours."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.own = self.rng.normal(0.0, 0.6, (CLIENTS, DIM))
        weight = self.rng.pareto(1.5, CLIENTS) + 0.1
        self.weight = weight / weight.sum() * (1 - BROKER_SHARE)
        self.weight[0] += 1 - self.weight.sum()
        self.key = self.rng.integers(0, 2**63, CLIENTS).astype(np.uint64)
        self.slope = self.rng.normal(0.0, 0.3, DIM)
        self.app = self.rng.normal(0.0, 1.2, DIM)
        self.sent = 0

    def population(self) -> Population:
        """From three eighths of the clients, 50 rows each at most, as calibration takes them."""
        sent = self.rng.multinomial(40_000, self.weight)
        fitting = np.arange(CLIENTS)[np.arange(CLIENTS) % 8 < 3]
        client = np.repeat(fitting, np.minimum(sent[fitting], CLIENT_ROWS_MAX))
        return fit_population(fixed(self._values(client, 0.0)), "simulated")

    def _values(self, client: np.ndarray, evening: float) -> F64:
        values = self.own[client] + self.rng.normal(0.0, 0.8, (len(client), DIM))
        values[:, 1] += 0.2 * evening
        return values

    def hour(self, number: int, change: Change) -> RowFrame:
        clock, weekday = number % 24, number // 24 % 7
        level = ROWS_AN_HOUR * (0.35 + 0.65 * np.sin(np.pi * clock / 24) ** 2) * (0.5 if weekday in (2, 3) else 1.0)
        n = int(self.rng.poisson(level * change.volume * self.rng.gamma(25.0, 1 / 25.0)))
        client = self.rng.choice(CLIENTS, n, p=self.weight)
        values = self._values(client, np.sin(2 * np.pi * clock / 24))
        values[client < change.app * CLIENTS] += self.app
        score = values @ self.slope + self.rng.normal(0.0, 0.5, n)
        score += change.score * np.hypot(0.5, np.linalg.norm(self.slope))
        refused = self.rng.random(n) < 0.02 + change.refused
        score = (1 / (1 + np.exp(-score))).astype(np.float32)
        time_ms = np.sort(BEGIN_MS + number * HOUR_MS + self.rng.integers(0, HOUR_MS, n))
        self.sent += n
        return RowFrame(
            0, number, "loan", "loan@simulated", "raw[0]", "k1",
            rows(self.key[client], fixed(values), score, time_ms, refused, self.sent - n),
        )  # fmt: skip


def fixed(values: F64) -> I16:
    return np.clip(np.rint(values * UNIT), -32_768, 32_767).astype(np.int16)


def rows(
    client: np.ndarray, values: I16, score: np.ndarray, time_ms: np.ndarray, refused: np.ndarray, first: int
) -> Rows:
    n = len(client)
    return blank_rows(
        n, 0, 0,
        offset=np.arange(first, first + n), client=client, time_ms=time_ms, values=values, score=score,
        margin=np.abs(score - 0.5), flags=(FLAG_REFUSED * refused).astype(np.uint16),
    )  # fmt: skip


def run(seed: int, hours: int, change: Change, at: int) -> Iterator[tuple[int, Event]]:
    """(hour, event) of one model; the change begins with hour `at`."""
    traffic = Traffic(seed)
    settings = drift.Settings(Config(), "0" * 16, {"loan@simulated": Model(traffic.population())})  # type: ignore[dict-item]
    fold = drift.DriftFold(settings)
    for number in range(hours):
        fold.step([traffic.hour(number, change if number >= at else Change("none"))])
        for event in close_due(fold):
            yield number, event


def close_due(fold: drift.DriftFold) -> list[Event]:
    until_ms = fold.due(())
    return [] if until_ms is None else fold.close(until_ms).events


def stationary(months: int) -> dict[str, object]:
    said: Counter[str] = Counter()
    for seed in range(months):
        for _, event in run(seed, LEARNED_H + 720, Change("none"), 0):
            body = json.loads(event.value)
            said[event.kind] += 1
            if event.kind == "drift":
                said[f"{body['statistic']} {body['test']} {body['state']}"] += 1
    return {name: round(count / months, 3) for name, count in sorted(said.items())}


def delays(change: Change, trials: int) -> dict[str, object]:
    """Hours from the change to the first record and the first alert of whatever statistic, and which was the first."""
    record: list[float] = []
    alerted: list[float] = []
    named: Counter[str] = Counter()
    for seed in range(1_000, 1_000 + trials):
        first: dict[str, int] = {}
        for hour, event in run(seed, LEARNED_H + 96, change, LEARNED_H):
            if hour < LEARNED_H:
                continue
            if event.kind == "drift" and "drift" not in first:
                named[json.loads(event.value)["statistic"]] += 1
            first.setdefault(event.kind, hour - LEARNED_H)
        record.append(first.get("drift", np.inf))
        alerted.append(first.get("alert", np.inf))
    return {
        "seen": round(float(np.isfinite(record).mean()), 2),
        "record_h": float(np.median(record)), "alert_h": float(np.median(alerted)),
        "record_h_95": float(np.sort(record)[int(0.95 * (trials - 1))]),
        "first": dict(named.most_common()),
    }  # fmt: skip


def cost() -> float:
    """us of processor time a row."""
    traffic = Traffic(1)
    settings = drift.Settings(Config(), "0" * 16, {"loan@simulated": Model(traffic.population())})  # type: ignore[dict-item]
    frames = [traffic.hour(number, Change("none", volume=4.0)) for number in range(60)]
    fold = drift.DriftFold(settings)
    begun, count = 0.0, 0
    for place, frame in enumerate(frames):
        if place == 10:
            begun = time.process_time()
        fold.step([frame])
        close_due(fold)
        count += frame.rows.count if place >= 10 else 0
    return 1e6 * (time.process_time() - begun) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=40)
    parser.add_argument("--trials", type=int, default=20)
    asked = parser.parse_args()
    print(f"cost: {cost():.2f} us a row ({DIM} numbers, 64 features)")
    print(f"per ordinary model-month, of {asked.months}:", stationary(asked.months))
    for change in CHANGES:
        print(f"{change.name}:", delays(change, asked.trials))


if __name__ == "__main__":
    main()
