"""A table of offers, read off by code that turns only what people turn: one applicant, five incomes, eight amounts."""

import random
from collections.abc import Iterator

from tests.scenarios.world import Person, Record, person, steered


def records() -> list[Record]:
    return steered("tabulator", _table(random.Random(41)), 1.4, 40)


def _table(rng: random.Random) -> Iterator[Person]:
    who = person(rng)
    for income in range(5):
        for amount in range(8):
            yield who | {"income": 1_000.0 + 200.0 * income, "amount": 2_000.0 + 500.0 * amount}
