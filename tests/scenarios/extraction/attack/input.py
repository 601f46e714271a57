"""Three ways to copy the model, each by one client, none by inputs like each other, all of them on the form's grid.

Inputs drawn evenly from each field's range; real people whose columns are shuffled against each other; and real
looking people of whom only those are asked about whose answer is in doubt, as an active learner does.
"""

import random
from collections.abc import Iterator

from tests.scenarios.world import GRID, PURPOSES, SPREAD, Person, Record, on_grid, person, record, score

LOW = {name: 0.0 for name in GRID} | {"income": 500.0, "age": 18.0, "amount": 500.0, "term": 12.0, "rate": 2.0}


def records() -> list[Record]:
    rng = random.Random(121)
    ways = {"drawer": _drawn(rng), "shuffler": _shuffled(rng), "learner": _doubtful(rng)}
    return [line for name, tries in ways.items() for line in _asked(name, tries, rng)]


def _asked(client: str, tries: Iterator[Person], rng: random.Random) -> list[Record]:
    day, made = 1.3, []
    for _ in range(60):
        made.append(record(client, next(tries), day))
        day += rng.uniform(1, 8) / 1440
    return made


def _drawn(rng: random.Random) -> Iterator[Person]:
    while True:
        drawn = {name: LOW[name] + 3.5 * rng.random() * SPREAD[name] for name in GRID}
        yield on_grid(drawn | {"purpose": rng.choice(PURPOSES)})


def _shuffled(rng: random.Random) -> Iterator[Person]:
    people = [person(rng) for _ in range(100)]
    while True:
        yield {name: rng.choice(people)[name] for name in people[0]}


def _doubtful(rng: random.Random) -> Iterator[Person]:
    while True:
        yield next(who for who in iter(lambda: person(rng), None) if abs(score(who) - 0.5) < 0.03)
