"""People who improve an application: three times each asks for less or pays for longer, and the chance rises."""

import random

from tests.scenarios.world import Record, person, record, score


def records() -> list[Record]:
    made: list[Record] = []
    for number in range(6):
        rng = random.Random(110 + number)
        who = person(rng) | {"amount": 50.0 * rng.randint(250, 400), "term": 24}
        tries = [who, who | {"amount": who["amount"] - 2_500.0}]
        tries.append(tries[-1] | {"term": 48})
        tries.append(tries[-1] | {"amount": tries[-1]["amount"] - 50.0 * rng.randint(20, 90)})
        assert [score(one) for one in tries] == sorted(score(one) for one in tries)
        day = 1.35 + number / 50
        for one in tries:
            made.append(record(f"improver-{number}", one, day))
            day += rng.uniform(2, 15) / 1440
    return made
