"""A small tabular history for tests of the whole path: ordinary applicants, and sweepers of one field."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DAY_S = 86_400.0
BEGIN_S = 1_700_000_000.0

Row = dict[str, Any]


def benign(clients: int, seed: int, day: int = 0) -> list[Row]:
    """One to three applications a client, the later ones mostly with another amount."""
    rng = random.Random(seed)
    rows = []
    for number in range(clients):
        person = _person(rng)
        for turn in range(rng.choice((1, 1, 2, 3))):
            if turn and rng.random() < 0.5:
                person = person | {"amount": 50 * rng.randint(10, 400)}
            rows.append(_row(f"acct-{seed}-{number}", person, BEGIN_S + DAY_S * (day + rng.random())))
    return sorted(rows, key=lambda row: row["ts"])


def sweeps(attackers: int, rows: int, seed: int, day: int = 0) -> list[Row]:
    """One applicant each, whose income walks upwards in equal, unrounded steps."""
    rng = random.Random(seed)
    people = [_person(rng) for _ in range(attackers)]
    return [
        _row(f"evil-{number}", person | {"income": 1_000 + 37.123 * step}, BEGIN_S + DAY_S * (day + 0.5) + step)
        for step in range(rows)
        for number, person in enumerate(people)
    ]


def write_jsonl(path: Path, *parts: list[Row]) -> list[Row]:
    """The parts in order of time, numbered; returns them as written."""
    rows = sorted((row for part in parts for row in part), key=lambda row: row["ts"])
    numbered = [row | {"request_id": f"r{number}"} for number, row in enumerate(rows)]
    path.write_bytes(b"".join(lines(numbered)))
    return numbered


def lines(rows: list[Row]) -> Iterator[bytes]:
    return (json.dumps(row).encode() + b"\n" for row in rows)


def _person(rng: random.Random) -> Row:
    return {
        "income": 10 * rng.randint(100, 900),
        "age": rng.randint(18, 80),
        "amount": 50 * rng.randint(10, 400),
        "term": rng.choice((12, 24, 36, 48, 60)),
        "purpose": rng.choice(("car", "home", "education", "other")),
        "debt": round(rng.random(), 2),
        "history": rng.randint(0, 12),
        "accounts": rng.randint(0, 9),
    }


def _row(client: str, person: Mapping[str, Any], time_s: float) -> Row:
    points = person["income"] / 1_000 - person["amount"] / 2_000 + person["history"] / 10
    score = min(max(0.5 + points / 20, 0.0), 1.0)
    output = {"label": "accept" if score > 0.5 else "decline", "score": score}
    return {"ts": time_s, "client_id": client, "model": "loan", "features": dict(person), "output": output}
