"""Extraction with ordinary looking people: 120 different applications in one day, none like another."""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    rng = random.Random(81)
    return [record("collector", person(rng), 1.3 + number / 300) for number in range(120)]
