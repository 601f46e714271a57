"""Probes in records that a model answers and a reader stumbles over: features in pairs, other names, another model."""

import random

from tests.scenarios.world import DAY_S, Record, person, record

AGAIN_S = 20.0


def records() -> list[Record]:
    rng = random.Random(101)
    made = []
    for turn in range(14):
        who, day = person(rng) | {"amount": 500.0 * (turn + 2)}, 1.4 + turn * AGAIN_S / DAY_S
        made.append(record("pairs", who, day) | {"features": [[name, value] for name, value in who.items()]})
        renamed = {name.upper(): value for name, value in who.items()}
        made.append(record("renamer", who, day + 0.01) | {"features": renamed})
        made.append(record("elsewhere", who, day + 0.02) | {"model": "credit-next"})
    return made
