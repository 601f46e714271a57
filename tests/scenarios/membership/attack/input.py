"""Who was in the training set? A list of people of whom half were, asked about through the account of an agency.

Twenty a day for three days: by their number, their times and their kind they are like other agencies' inputs.
"""

import random

from tests.scenarios.world import Record, person, record, training_set


def records() -> list[Record]:
    rng = random.Random(141)
    members = training_set()[300:]
    made = []
    for day in range(3):
        time = day + 0.35
        for _ in range(20):
            who = rng.choice(members) if rng.random() < 0.5 else person(rng)
            made.append(record("inquirer", who, time, "broker"))
            time += rng.expovariate(1 / 20) / 1440
    return made
