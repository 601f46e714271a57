"""Inversion by hill-climbing: from an applicant who is accepted already, towards the model's ideal one.

A few fields move by random lengths, one way or another; what scores higher is kept. Every input is on the form's grid.
"""

import random
from collections.abc import Iterator

from tests.scenarios.world import SPREAD, Person, Record, on_grid, person, score, steered


def records() -> list[Record]:
    return steered("inverter", _climb(random.Random(101)), 1.4, 60)


def _climb(rng: random.Random) -> Iterator[Person]:
    who = next(one for one in iter(lambda: person(rng), None) if score(one) > 0.6)
    while True:
        moved = rng.sample(sorted(SPREAD), 5)
        tried = on_grid(who | {name: who[name] + rng.gauss(0, 0.4) * SPREAD[name] for name in moved})
        yield tried
        if score(tried) > score(who):
            who = tried
