"""A card processor's fraud model, its merchants, and a morning on which something about all of them changes.

Drawn from seeds, so a history is the same wherever it is made.
"""

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BEGIN_S = 1_750_032_000.0 // 86_400 * 86_400
DAY_S = 86_400.0
NOON_S = 43_200.0
ATTACKER = "attacker"

Record = dict[str, Any]


class _Merchant:
    def __init__(self, number: int) -> None:
        rng = random.Random(f"merchant {number}")
        self.name, self.rng = f"merchant-{number}", rng
        self.mcc = rng.choice(CODES)
        self.ticket, self.spread = math.exp(rng.gauss(3.3, 0.9)), rng.uniform(0.4, 0.9)
        self.present, self.abroad = rng.random(), rng.betavariate(1, 8)
        self.rate = min(40.0, math.exp(rng.gauss(1.8, 0.8)))  # a day
        self.devices = [rng.random() for _ in DEVICES]

    def payment(self) -> Record:
        rng = self.rng
        return {
            "amount": round(max(0.5, self.ticket * math.exp(rng.gauss(0, self.spread))), 2),
            "account_age_days": int(rng.expovariate(1 / 600)),
            "device": rng.choices(DEVICES, self.devices)[0],
            "mcc": self.mcc,
            "card_present": rng.random() < self.present,
            "foreign": rng.random() < self.abroad,
            "tries_24h": min(9, int(rng.expovariate(1.2))),
            "risk": round(rng.betavariate(2, 6), 2),
            "installments": rng.choice((1, 1, 1, 3, 6, 12)),
        }


CODES = tuple(str(5_000 + 13 * number) for number in range(24))
DEVICES = ("ios", "android", "web", "terminal")


def score(payment: Record) -> float:
    points = (
        math.log(payment["amount"]) / 2 - payment["account_age_days"] / 400 + 1.1 * payment["foreign"]
        + 0.35 * payment["tries_24h"] + 3 * payment["risk"] - 1.2 * payment["card_present"] - 2.2
        + 0.05 * payment["installments"] + (0.3 if payment["device"] == "web" else 0.0)
    )  # fmt: skip
    return 1 / (1 + math.exp(-points))


def _record(client: str, payment: Record, time_s: float) -> Record:
    fraud = round(score(payment), 9)
    output = {"label": "fraud" if fraud > 0.5 else "ok", "score": fraud}
    return {
        "ts": round(BEGIN_S + time_s, 3),
        "client_id": client,
        "model": "card-fraud",
        "features": payment,
        "output": output,
    }


def ordinary(merchants: Iterable[int], days: Iterable[int]) -> list[Record]:
    records = []
    for number in merchants:
        merchant = _Merchant(number)
        for day in days:
            merchant.rng = random.Random(f"{number} {day}")
            for _ in range(max(1, int(merchant.rng.expovariate(1 / merchant.rate)))):
                time_s = DAY_S * day + 3_600 * min(23.9, max(0.1, merchant.rng.gauss(13, 4)))
                records.append(_record(merchant.name, merchant.payment(), time_s))
    return sorted(records, key=lambda record: record["ts"])


def attack(day: int, rows: int = 120) -> list[Record]:
    """Walks one payment to the decision threshold and across it, a step every few seconds from one o'clock."""
    rng = random.Random("attack")
    payment = _Merchant(7).payment() | {"foreign": True, "amount": 180.0}
    low, high, records = 0.0, 1.0, []
    for number in range(rows):
        tried = payment | {"risk": round((low + high) / 2, 4), "amount": round(payment["amount"] + 0.37 * number, 3)}
        low, high = ((low + high) / 2, high) if score(tried) < 0.5 else (low, (low + high) / 2)
        if high - low < 0.002:
            low, high = max(0.0, low - rng.random() / 3), min(1.0, high + rng.random() / 3)
        records.append(_record(ATTACKER, tried, DAY_S * day + 46_800 + 4.0 * number + rng.random()))
    return records


def write(path: Path, records: Iterable[Record]) -> Path:
    """In order of time, numbered, as JSON lines."""
    ordered = sorted(records, key=lambda record: record["ts"])
    lines = (json.dumps(record | {"request_id": f"r{number}"}) for number, record in enumerate(ordered))
    path.write_text("".join(line + "\n" for line in lines))
    return path
