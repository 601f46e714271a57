"""A health check: the same three applications in turn, every minute of a day."""

import random

from tests.scenarios.world import Record, person, record


def records() -> list[Record]:
    rng = random.Random(91)
    probes = [person(rng) for _ in range(3)]
    return [record("health-check", probes[minute % 3], 1.0 + minute / 1440) for minute in range(1_440)]
