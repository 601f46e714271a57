"""Score-guided search, as SimBA does it: six fields move by a fixed step, up or down; what scores higher is kept."""

import random
from collections.abc import Iterator

from tests.scenarios.world import Person, Record, person, score, steered

STEPS = {"income": 300.0, "amount": 750.0, "debt": 0.04, "used": 0.04, "rate": 0.4, "tenure": 10}


def records() -> list[Record]:
    return steered("climber", _climb(random.Random(41)), 1.4, 40)


def _climb(rng: random.Random) -> Iterator[Person]:
    who = person(rng) | {"income": 1_500.0, "amount": 15_000.0, "debt": 0.5, "used": 0.5, "rate": 6.0, "tenure": 100}
    while True:
        tried = who | {name: round(who[name] + rng.choice((-step, step)), 2) for name, step in STEPS.items()}
        yield tried
        if score(tried) > score(who):
            who = tried
