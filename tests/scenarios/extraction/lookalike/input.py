"""A broker, declared: 25 real and different applicants in a day. And people who ask what would be if.

One of them is an odd customer, at 79 with half a year at work and the largest loan: once.
"""

import random

from tests.scenarios.world import Record, corrected, person, record


def records() -> list[Record]:
    rng = random.Random(131)
    day, made = 1.35, []
    for _ in range(25):
        made.append(record("agency", person(rng), day, "broker"))
        day += rng.expovariate(1 / 20) / 1440
    for number in range(4):
        who, day = person(rng), 1.4 + number / 50
        for _ in range(4):
            made.append(record(f"what-if-{number}", who, day))
            who, day = corrected(rng, who), day + rng.uniform(1, 20) / 1440
    odd = person(rng) | {"age": 79, "tenure": 6, "amount": 20_000.0, "income": 600.0}
    return [*made, record("odd", person(rng), 1.5), record("odd", odd, 1.51)]
