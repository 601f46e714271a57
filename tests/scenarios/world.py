"""A small world: a credit model, the people who apply to it, and what its gateway logs.

Everything is drawn from seeds and rounded to the fields' grids, so a history is the same wherever it is made.
"""

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

DAY_S = 86_400.0
BEGIN_S = 1_750_000_000.0 // DAY_S * DAY_S

Person = dict[str, Any]
Record = dict[str, Any]

GRID = {
    "income": 10.0, "age": 1.0, "amount": 50.0, "term": 6.0, "debt": 0.01, "history": 1.0, "accounts": 1.0,
    "tenure": 1.0, "used": 0.01, "late": 1.0, "rate": 0.1,
}  # fmt: skip
"""Steps of the number fields."""
SPREAD = {
    "income": 2_000.0, "age": 15.0, "amount": 5_000.0, "term": 18.0, "debt": 0.25, "history": 3.5, "accounts": 2.6,
    "tenure": 70.0, "used": 0.28, "late": 1.2, "rate": 2.4,
}  # fmt: skip
"""About one standard unit of each."""
PURPOSES = ("car", "home", "education", "travel", "other")


def person(rng: random.Random) -> Person:
    """Nobody is a column by column draw: who earns more asks for more, and nobody worked for longer than grown up."""
    age, wealth, care = rng.randint(18, 80), rng.gauss(0, 1), rng.random()
    grown = age - 17
    return {
        "income": 10.0 * round(math.exp(5.7 + 0.5 * wealth)),
        "age": age,
        "amount": 50.0 * min(400, max(10, round(200 + 90 * wealth + rng.gauss(0, 60)))),
        "term": rng.choice((12, 24, 36, 48, 60)),
        "debt": round(min(1.0, max(0.0, 0.75 * (1 - care) + rng.gauss(0.12, 0.1))), 2),
        "history": min(12, rng.randint(0, grown)),
        "accounts": rng.randint(0, 9),
        "tenure": min(240, rng.randint(0, 12 * grown)),
        "used": round(min(1.0, max(0.0, 0.8 * (1 - care) + rng.gauss(0.1, 0.1))), 2),
        "late": rng.choice((0, 0, 0, 1) if care > 0.4 else (0, 1, 2, 4)),
        "rate": round(min(10.0, max(2.0, 10 - 7 * care + rng.gauss(0, 1))), 1),
        "purpose": rng.choice(PURPOSES),
    }


def score(who: Mapping[str, Any]) -> float:
    """The model: the chance of repayment. Its answer turns at 0.5."""
    points = (
        who["income"] / 2_000 - who["amount"] / 9_000 + who["history"] / 8 - 1.4 * who["debt"] + who["tenure"] / 200
        - 0.9 * who["used"] - 0.5 * who["late"] + (0.3 if who["purpose"] == "home" else 0.0) + (who["age"] - 45) / 90
        - who["rate"] / 20 + who["term"] / 120 - 0.02 * who["accounts"]
    )  # fmt: skip
    return 1.0 / (1.0 + math.exp(-points))


def on_grid(who: Mapping[str, Any]) -> Person:
    """Rounded as the application form would have it."""
    return dict(who) | {name: round(round(who[name] / step) * step, 2) for name, step in GRID.items()}


def record(client: str, who: Mapping[str, Any], day: float, client_class: str | None = None) -> Record:
    """One line of the gateway's log. day : since the beginning, with its fraction."""
    repaid = score(who)
    label = "accept" if repaid > 0.5 else "decline"
    line = {
        "ts": round(BEGIN_S + DAY_S * day, 3), "client_id": client, "model": "credit", "features": dict(who),
        "output": {"label": label, "score": round(repaid, 9)},
    }  # fmt: skip
    return line if client_class is None else line | {"client_class": client_class}


def corrected(rng: random.Random, who: Person) -> Person:
    """An applicant tries again: mostly another amount or term, now and then a mistake put right."""
    changed = dict(who)
    for field in rng.choices(
        ("amount", "term", "purpose", "income", "debt"), (50, 20, 10, 15, 5), k=rng.choice((1, 1, 2))
    ):
        changed[field] = person(rng)[field]
    return changed


def benign(clients: int, seed: int, days: int = 3, name: str = "person") -> list[Record]:
    """One application each; two in five try again, once to three times; one in eight comes back another day."""
    rng = random.Random(seed)
    records = []
    for number in range(clients):
        who, client = person(rng), f"{name}-{seed}-{number}"
        day = rng.randrange(days) + rng.uniform(0.3, 0.9)
        visits = [(who, day)]
        if rng.random() < 0.4:
            for _ in range(rng.choice((1, 1, 2, 3))):
                who, day = corrected(rng, who), day + rng.uniform(1, 20) / 1440
                visits.append((who, day))
        if rng.random() < 0.125:
            visits.append((corrected(rng, who), day + rng.randint(1, 3)))
        records += [record(client, who, day) for who, day in visits]
    return records


def training_set(count: int = 500) -> list[Person]:
    """What the model was trained on."""
    rng = random.Random(2)
    return [person(rng) for _ in range(count)]


def returning(clients: int, seed: int, days: int = 3) -> list[Record]:
    """People whose own application is in the training set: they look at it once more, and half of them change it."""
    rng = random.Random(seed)
    records = []
    for number, who in enumerate(rng.sample(training_set(), clients)):
        day = rng.randrange(days) + rng.uniform(0.3, 0.9)
        records.append(record(f"returning-{seed}-{number}", who, day))
        if rng.random() < 0.5:
            records.append(record(f"returning-{seed}-{number}", corrected(rng, who), day + rng.uniform(1, 20) / 1440))
    return records


def retrying(clients: int, seed: int, days: int = 3) -> list[Record]:
    """Front ends that send one application again and again, a few seconds apart, until somebody looks."""
    rng = random.Random(seed)
    records = []
    for number in range(clients):
        who, time = person(rng), rng.randrange(days) + rng.uniform(0.3, 0.9)
        every_s = rng.uniform(4, 30)
        for _ in range(rng.randint(5, 40)):
            records.append(record(f"retrying-{seed}-{number}", who, time))
            time += every_s * rng.uniform(0.8, 1.2) / DAY_S
    return records


def brokers(clients: int, seed: int, days: int = 3) -> list[Record]:
    """Many real applicants a day, one after the other as they come; one in eight asks for another offer."""
    rng = random.Random(seed)
    records = []
    for number in range(clients):
        for day in rng.sample(range(days), 2):
            time = day + 0.35
            for _ in range(rng.randint(5, 25)):
                who, time = person(rng), time + rng.expovariate(1 / 20) / 1440
                records.append(record(f"broker-{seed}-{number}", who, time, "broker"))
                if rng.random() < 0.125:
                    time += rng.uniform(1, 10) / 1440
                    records.append(record(f"broker-{seed}-{number}", corrected(rng, who), time, "broker"))
    return records


def jobs(clients: int, seed: int, days: int = 3) -> list[Record]:
    """Nightly jobs: old customers, most of whom the model was trained on, one every so many seconds."""
    rng, customers = random.Random(seed), training_set()
    records = []
    for number in range(clients):
        every_s = rng.choice((2.0, 5.0, 20.0, 90.0))
        for day in rng.sample(range(days), 2):
            batch = [person(rng) if rng.random() < 0.3 else rng.choice(customers) for _ in range(rng.randint(10, 30))]
            for turn, who in enumerate(batch):
                records.append(record(f"job-{seed}-{number}", who, day + 0.1 + turn * every_s / DAY_S, "system"))
    return records


def steered(client: str, tries: Iterator[Person], day: float, count: int, every_s: float = 2.0) -> list[Record]:
    """`count` inputs of one client, a few seconds apart."""
    return [record(client, next(tries), day + number * every_s / DAY_S) for number in range(count)]


def as_bytes(line: Record) -> bytes:
    return json.dumps(line).encode()


def write(path: Path, *parts: Iterable[Record]) -> Path:
    """All parts in order of time, as JSON lines; ties in the order given."""
    records = sorted((line for part in parts for line in part), key=lambda line: line["ts"])
    with path.open("wb") as file:
        for number, line in enumerate(records):
            file.write(as_bytes(line | {"request_id": f"r-{number}"}) + b"\n")
    return path


def write_rows(path: Path, rows: Iterable[Person]) -> Path:
    """Inputs without anything about them, as JSON lines."""
    path.write_bytes(b"".join(as_bytes(row) + b"\n" for row in rows))
    return path
