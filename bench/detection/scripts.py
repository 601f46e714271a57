"""What benign clients of each kind send on one day. All clients of a kind at once: a script returns pieces in order.

A script gets the client-days ("visits") of its kind and returns (visit, inputs) pairs; the requests of a visit come in
the order of the pieces.
"""

from typing import NamedTuple

import numpy as np

from bench.detection.clients import People
from bench.detection.victim import Model
from models.rows import F64, I64

OTHERS_MAX, OTHERS_TAIL = 80, 1.2
"""People asked for by one consumer in a day: most and Pareto exponent."""
REQUOTES_MIN, REQUOTES_MAX, REQUOTES_TAIL = 3, 100, 1.3
"""Quotes of a re-quoter: 3 + Pareto of exponent 1.3, whose mean hardly exists; a hundred forms is a day's work."""
SHOPPING_MAX = 25
WHAT_IFS = (5, 15)
RETRIES = (15, 60)
APPLICANTS = (20, 60)
VARIANT_SHARE = 1 / 3
TEMPLATED_APPLICANTS = (8, 25)
TEMPLATED_FIELDS_SHARE = 0.4
APP_SEED = 1  # the same product in every population: another one would be a shift
TEMPLATED_VALUES = 3
HEALTH_CHECKS = (48, 144)
PORTFOLIO = (40, 80)
LOAD_TEST = (100, 250)
BATCH = (80, 200)


class Desk(NamedTuple):
    """What every script works with."""

    people: People
    model: Model
    rng: np.random.Generator


class Visits(NamedTuple):
    """b client-days. client, day : (b,). person : (b, d) the application a client has in mind, the same every day."""

    client: I64
    day: I64
    person: F64


Pieces = list[tuple[I64, F64]]


def ordinary(desk: Desk, visits: Visits) -> Pieces:
    """One to three requests: the application, then an edit or the same again."""
    count = desk.rng.choice([1, 2, 3], len(visits.client), p=[0.6, 0.25, 0.15])
    pieces = [(np.arange(len(count)), visits.person)]
    row = visits.person
    for turn in (1, 2):
        row = desk.people.edit(desk.rng, row, (desk.rng.random(len(row)) < 0.7).astype(np.int64))
        later = np.flatnonzero(count > turn)
        pieces.append((later, row[later]))
    return pieces


def requoter(desk: Desk, visits: Visits) -> Pieces:
    """Own application with one to three edits at a time; most try a few, some try very often."""
    rng, person = desk.rng, visits.person
    count = np.minimum(REQUOTES_MAX, REQUOTES_MIN + (3 * rng.pareto(REQUOTES_TAIL, len(person))).astype(np.int64))
    pieces = [(np.arange(len(person)), person)]
    last = person.copy()
    for turn in range(1, int(count.max())):
        going = np.flatnonzero(count > turn)
        origin = np.where(rng.random((len(going), 1)) < 0.5, last[going], person[going])
        last[going] = desk.people.edit(rng, origin, rng.integers(1, 4, len(going)))
        pieces.append((going, last[going]))
    return pieces


def shopper(desk: Desk, visits: Visits) -> Pieces:
    """Declined people: half ask for less and less until it is a yes, half keep each edit that raises the score."""
    rng, people = desk.rng, desk.people
    declined = np.flatnonzero(desk.model.score(people.dataset.inputs) < 0.5)
    person = people.dataset.inputs[declined[visits.client % len(declined)]]
    best, score = person.copy(), desk.model.score(person)
    lowers = rng.random(len(best)) < 0.5
    count = rng.integers(WHAT_IFS[0], SHOPPING_MAX + 1, len(best))
    wanted = np.full(len(best), people.dataset.editable[0])
    pieces = [(np.arange(len(best)), person)]
    for turn in range(1, SHOPPING_MAX):
        going = np.flatnonzero((count > turn) & (score < 0.5))
        less = people.step(best[going], wanted[going], np.full(len(going), -1.0))
        other = people.edit(rng, best[going], np.ones(len(going), np.int64))
        tried = np.where(lowers[going, None], less, other)
        answer = desk.model.score(tried)
        kept = lowers[going] | (answer > score[going])
        best[going[kept]], score[going[kept]] = tried[kept], answer[kept]
        pieces.append((going, tried))
    return pieces


def what_if(desk: Desk, visits: Visits) -> Pieces:
    """A person with a what-if tool: 5 to 15 variants of one application, in two of its fields, round steps."""
    rng, people = desk.rng, desk.people
    count = rng.integers(WHAT_IFS[0], WHAT_IFS[1] + 1, len(visits.client))
    chosen = people.pick_fields(rng, len(count), 2)
    now = visits.person.copy()
    pieces = [(np.arange(len(count)), visits.person)]
    for turn in range(1, WHAT_IFS[1]):
        going = np.flatnonzero(count > turn)
        field = chosen[going, rng.integers(0, 2, len(going))]
        # Most move on from the last value; some go back to where they began.
        origin = np.where(rng.random((len(going), 1)) < 0.8, now[going], visits.person[going])
        now[going] = people.change(rng, origin, field)
        pieces.append((going, now[going]))
    return pieces


def retry_storm(desk: Desk, visits: Visits) -> Pieces:
    """The same request again and again."""
    return [_repeated(visits.person, desk.rng.integers(RETRIES[0], RETRIES[1], len(visits.client)))]


def returning(desk: Desk, visits: Visits) -> Pieces:
    """A customer who comes back on other days with figures that have moved a little."""
    moved = desk.people.next_month(desk.rng, visits.person)
    fresh = np.diff(visits.client, prepend=-1) != 0
    return ordinary(desk, visits._replace(person=np.where(fresh[:, None], visits.person, moved)))


def asks_for_others(desk: Desk, visits: Visits) -> Pieces:
    """Two people or more, most of them a few, some very many; every fifth application is corrected once."""
    rng = desk.rng
    count = np.minimum(OTHERS_MAX, 2 + (2 * rng.pareto(OTHERS_TAIL, len(visits.client))).astype(np.int64))
    owner = np.repeat(np.arange(len(count)), count)
    applicants = desk.people.bootstrap(rng, len(owner))
    of, turn = _counted(1 + (rng.random(len(owner)) < 0.2).astype(np.int64))
    return [(owner[of], desk.people.edit(rng, applicants[of], (turn > 0).astype(np.int64)))]


def broker(desk: Desk, visits: Visits) -> Pieces:
    """20 to 60 applicants a day; every third is quoted again with one to three other terms."""
    rng = desk.rng
    owner = np.repeat(np.arange(len(visits.client)), rng.integers(*APPLICANTS, len(visits.client)))
    applicants = desk.people.bootstrap(rng, len(owner))
    quotes = 1 + (rng.random(len(owner)) < VARIANT_SHARE) * rng.integers(1, 4, len(owner))
    of, turn = _counted(quotes)
    return [(owner[of], desk.people.edit(rng, applicants[of], (turn > 0).astype(np.int64)))]


def templated_broker(desk: Desk, visits: Visits) -> Pieces:
    """One front-end app that fills 40 % of the fields with its defaults and quotes each applicant on a fixed grid."""
    rng, people = desk.rng, desk.people
    owner = np.repeat(np.arange(len(visits.client)), rng.integers(*TEMPLATED_APPLICANTS, len(visits.client)))
    applicants = people.bootstrap(rng, len(owner))
    numbers = people.dataset.attackable
    app = np.random.default_rng(APP_SEED)
    defaults = app.choice(numbers, max(1, round(TEMPLATED_FIELDS_SHARE * len(numbers))), replace=False)
    applicants[:, defaults] = np.nanquantile(people.dataset.inputs[:, defaults], 0.5, axis=0, method="inverted_cdf")
    first, second = people.dataset.editable[:2]
    grid = [people.usual(int(field), TEMPLATED_VALUES) for field in (first, second)]
    of, place = _counted(np.full(len(owner), len(grid[0]) * len(grid[1])))
    rows = applicants[of]
    rows[:, first] = grid[0][place % len(grid[0])]
    rows[:, second] = grid[1][place // len(grid[0])]
    return [(owner[of], rows)]


def health_check(desk: Desk, visits: Visits) -> Pieces:
    """The same person every few minutes, day after day."""
    return [_repeated(visits.person, desk.rng.integers(*HEALTH_CHECKS, len(visits.client)))]


def rescoring(desk: Desk, visits: Visits) -> Pieces:
    """A whole portfolio, month by month, one to three months a day; between months every figure moves a little."""
    rng = desk.rng
    size = np.zeros(int(visits.client.max()) + 1, np.int64)
    size[visits.client] = rng.integers(*PORTFOLIO, len(visits.client))
    first = np.zeros(len(size), np.int64)
    first[visits.client] = rng.integers(0, len(desk.people.dataset.inputs), len(visits.client))
    owner, place = _counted(size[visits.client])
    # The same people every day: a client's portfolio is a run of the data set's rows.
    rows = desk.people.dataset.inputs[(first[visits.client][owner] + place) % len(desk.people.dataset.inputs)]
    for month in range(1, int(visits.day.max(initial=0)) + 1):
        later = visits.day[owner] >= month
        rows[later] = desk.people.next_month(rng, rows[later])
    pieces = [(owner, rows)]
    months = rng.integers(1, 4, len(visits.client))
    for month in (1, 2):
        rows = desk.people.next_month(rng, rows)
        going = months[owner] > month
        pieces.append((owner[going], rows[going]))
    return pieces


def load_test(desk: Desk, visits: Visits) -> Pieces:
    """A template with two fields filled from short lists, A and B in turn."""
    rng, people = desk.rng, desk.people
    owner, place = _counted(rng.integers(*LOAD_TEST, len(visits.client)))
    rows = visits.person[owner]
    fields = people.pick_fields(rng, len(visits.client), 2)[owner]
    for arm in (0, 1):
        for j in np.unique(fields[:, arm]).tolist():
            chosen = np.flatnonzero(fields[:, arm] == j)
            values = people.usual(j, 10)
            rows[chosen, j] = values[(place[chosen] // (1, 2)[arm]) % len(values)]
    return [(owner, rows)]


def batch(desk: Desk, visits: Visits) -> Pieces:
    """A scoring job over rows that the model was trained on."""
    owner, _ = _counted(desk.rng.integers(*BATCH, len(visits.client)))
    return [(owner, desk.people.dataset.inputs[desk.rng.choice(desk.model.trained, len(owner))])]


def _counted(counts: I64) -> tuple[I64, I64]:
    """Which of b things each of sum(counts) rows belongs to, and its place within."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - (np.cumsum(counts) - counts)[of]


def _repeated(person: F64, counts: I64) -> tuple[I64, F64]:
    of, _ = _counted(counts)
    return of, person[of]
