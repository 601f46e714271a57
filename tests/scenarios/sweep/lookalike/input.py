"""Shoppers: each tries three amounts and another term for one application, as the form invites everybody to."""

import random

from tests.scenarios.world import Person, Record, person, record


def records() -> list[Record]:
    made = []
    for number in range(6):
        rng = random.Random(100 + number)
        who = person(rng)
        amounts = [who["amount"], *(50.0 * rng.randint(10, 400) for _ in range(2))]
        tries: list[Person] = [who | {"amount": amount} for amount in amounts]
        tries.append(tries[-1] | {"term": 36})
        day = 1.5 + number / 100
        for one in tries:
            made.append(record(f"shopper-{number}", one, day))
            day += rng.uniform(2, 6) / 1440
    return made
