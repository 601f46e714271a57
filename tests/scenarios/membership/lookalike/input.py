"""A nightly job, declared, that scores old customers: most of its rows are training rows.

And people who were in the training set themselves: they look at their own application again, and change the amount.
"""

import random

from tests.scenarios.world import DAY_S, Record, corrected, person, record, training_set


def records() -> list[Record]:
    rng, customers = random.Random(151), training_set()
    made = []
    for turn in range(25):
        who = person(rng) if rng.random() < 0.3 else customers[turn]
        made.append(record("monthly", who, 1.1 + turn * 20 / DAY_S, "system"))
    for number in range(5):
        who, day = customers[400 + number], 1.4 + number / 30
        made.append(record(f"customer-{number}", who, day))
        made.append(record(f"customer-{number}", corrected(rng, who), day + rng.uniform(2, 20) / 1440))
    return made
