"""Shoppers: each tries three amounts and another term for one application, as the form invites everybody to."""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    made = []
    for number in range(6):
        rng = random.Random(100 + number)
        who = person(rng)
        for turn, change in enumerate(
            ({}, {"amount": 50.0 * rng.randint(10, 400)}, {"amount": 50.0 * rng.randint(10, 400)}, {"term": 36})
        ):
            who = who | change
            made.append(record(f"shopper-{number}", who, 1.5 + number / 100 + turn * 4 / 1440))
    return made
