"""A local surrogate, as explanations of single answers are made: one applicant, probed all around.

Each time one to six fields are moved by a fixed step, up or down, whatever came back before.
"""

import random
from collections.abc import Iterator

from tests.scenarios.world import SPREAD, Person, Record, on_grid, person, steered


def records() -> list[Record]:
    return steered("surrogate", _around(random.Random(41)), 1.4, 40)


def _around(rng: random.Random) -> Iterator[Person]:
    who = person(rng)
    while True:
        moved = rng.sample(sorted(SPREAD), rng.randint(1, 6))
        yield on_grid(who | {name: who[name] + rng.choice((-0.15, 0.15)) * SPREAD[name] for name in moved})
