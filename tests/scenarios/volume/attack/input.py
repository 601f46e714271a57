"""Extraction with ordinary looking people: 120 different applications in one day, none like another, at no fixed times.

And a slower programme beside it, which asks like clockwork: one every eleven minutes, by night as by day.
"""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    rng = random.Random(81)
    day, made = 1.3, []
    for _ in range(120):
        made.append(record("collector", person(rng), day))
        day += rng.expovariate(300)
    return made + [record("clockwork", person(rng), 0.9 + turn * 11 / 1440) for turn in range(40)]
