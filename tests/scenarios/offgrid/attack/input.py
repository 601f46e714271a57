"""Extraction with synthetic inputs that nobody rounded: incomes with nine decimals, 41.7 dependants."""

import random
from collections.abc import Iterator

from tests.scenarios.world import SPREAD, Person, Record, person, steered


def records() -> list[Record]:
    return steered("synthetic", _drawn(random.Random(61)), 1.4, 15)


def _drawn(rng: random.Random) -> Iterator[Person]:
    while True:
        who = person(rng)
        yield who | {name: who[name] + rng.random() * SPREAD[name] for name in SPREAD}
