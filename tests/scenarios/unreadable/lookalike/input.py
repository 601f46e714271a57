"""A broken form: now and then it counts tokens wrong. And people whose first request comes without any field."""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    rng = random.Random(111)
    who = person(rng)
    made = [
        record("form", who, 0.3 + turn / 24) | ({"tokens_in": -1} if turn % 10 == 9 else {"tokens_in": 0})
        for turn in range(40)
    ]
    for number in range(8):
        who, day = person(rng), 1.3 + number / 20
        made.append(record(f"again-{number}", who, day) | {"features": {}})
        made.append(record(f"again-{number}", who, day + 0.001))
    return made
