"""One slip each: an income with a fraction, a purpose nobody had. One odd value is a typing error."""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    rng = random.Random(71)
    slips = [{"income": 2_345.67}, {"purpose": "boat"}, {"rate": 3.456}, {"age": 41.5}]
    return [
        record(f"typist-{number}", person(rng) | slip, 1.3 + number / 10 + turn / 100)
        for number, slip in enumerate(slips)
        for turn, slip in enumerate(({}, slip))
    ]
