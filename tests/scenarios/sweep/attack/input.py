"""One applicant, one knob after another: 12 ages, 12 lengths of employment, 12 incomes, everything else held still."""

import random
from collections.abc import Iterator

from tests.scenarios.world import Person, Record, person, steered


def records() -> list[Record]:
    return steered("sweeper", _knobs(), 1.4, 36)


def _knobs() -> Iterator[Person]:
    who = person(random.Random(11))
    for field, step in (("age", 2), ("tenure", 7), ("income", 150.0)):
        for turn in range(12):
            yield who | {field: who[field] + step * turn}
