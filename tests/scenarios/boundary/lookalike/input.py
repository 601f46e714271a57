"""People whose chance is a coin's: declined by a hair, they ask for a little less, and are accepted."""

import random

from tests.scenarios.world import Record, person, record, score


def records() -> list[Record]:
    rng = random.Random(31)
    made: list[Record] = []
    number = 0
    while number < 6:
        who = person(rng)
        less = who | {"amount": max(500.0, who["amount"] - 50.0 * rng.randint(10, 60))}
        if not 0.44 < score(who) < 0.5 < score(less):
            continue
        made.append(record(f"hair-{number}", who, 1.5 + number / 50))
        made.append(record(f"hair-{number}", less, 1.5 + number / 50 + 7 / 1440))
        number += 1
    return made
