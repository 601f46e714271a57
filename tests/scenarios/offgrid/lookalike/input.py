"""One slip each: an income with a fraction, a purpose nobody had. One odd value is a typing error."""

import random

from tests.scenarios.world import Person, Record, person, record

SLIPS: list[Person] = [{"income": 2_345.67}, {"purpose": "boat"}, {"rate": 3.456}, {"age": 41.5}]


def records() -> list[Record]:
    rng = random.Random(71)
    made = []
    for number, slip in enumerate(SLIPS):
        client, day = f"typist-{number}", 1.3 + number / 10
        made += [record(client, person(rng), day), record(client, person(rng) | slip, day + 0.01)]
    return made
