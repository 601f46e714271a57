"""A health check that nobody declared: the same three applications in turn, every minute of a day.

A nightly job, declared: 28 customers, one every five seconds. And people who come back after exactly ten minutes.
"""

import random

from tests.scenarios.world import DAY_S, Record, corrected, person, record


def records() -> list[Record]:
    rng = random.Random(91)
    probes = [person(rng) for _ in range(3)]
    made = [record("health-check", probes[minute % 3], 1.0 + minute / 1440) for minute in range(1_440)]
    made += [record("nightly", person(rng), 1.1 + turn * 5 / DAY_S, "system") for turn in range(28)]
    for number in range(3):
        who = person(rng)
        for turn in range(3):
            made.append(record(f"punctual-{number}", who, 1.4 + number / 10 + turn * 10 / 1440))
            who = corrected(rng, who)
    return made
