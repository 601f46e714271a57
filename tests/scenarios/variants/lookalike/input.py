"""A gateway that retries: one application sent 300 times in an hour, then once more with the amount corrected.

And two people who come back over two days with what they had mistyped.
"""

import random

from tests.scenarios.world import Record, corrected, person, record


def records() -> list[Record]:
    rng = random.Random(51)
    who = person(rng)
    made = [record("retrying", who, 1.4 + turn / 7_200) for turn in range(300)]
    made.append(record("retrying", who | {"amount": 9_000.0}, 1.5))
    for name in ("returning-1", "returning-2"):
        who = person(rng)
        for day in (0.4, 0.45, 1.6):
            made.append(record(name, who, day))
            who = corrected(rng, who)
    return made
