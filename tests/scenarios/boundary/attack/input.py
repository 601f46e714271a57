"""Labels only, as HopSkipJump asks: halve the way between a yes and a no, then feel around the point of the turn.

The fields of small whole numbers are left alone; every input is rounded to the form's grid.
"""

import random
from collections.abc import Iterator

from tests.scenarios.world import SPREAD, Person, Record, on_grid, person, score, steered

FINE = ("income", "age", "amount", "debt", "tenure", "used", "rate")


def records() -> list[Record]:
    return steered("walker", _walk(random.Random(21)), 1.4, 60)


def _walk(rng: random.Random) -> Iterator[Person]:
    people = [person(rng) for _ in range(400)]
    no = next(who for who in people if score(who) < 0.4)
    yes = next(who for who in (no | {name: one[name] for name in FINE} for one in people) if score(who) > 0.6)
    while True:
        for _ in range(7):
            middle = on_grid(yes | {name: (yes[name] + no[name]) / 2 for name in FINE})
            yield middle
            yes, no = (middle, no) if score(middle) > 0.5 else (yes, middle)
        for _ in range(10):
            yield on_grid(yes | {name: yes[name] + rng.gauss(0, 0.12) * SPREAD[name] for name in FINE})
        no = on_grid(yes | {name: yes[name] + rng.gauss(0, 0.5) * SPREAD[name] for name in FINE})
