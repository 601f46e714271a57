"""Benign clients of a scoring service: real people, and every look-alike of an attack that is known to be hard.

Nothing here knows the detectors. There is no public log that gives the shares of kinds: they are set so that each hard
kind is common enough to reach any threshold of 1 in 1,000 client-days, and a population by other shares is one call.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bench.detection import arrivals, scripts
from bench.detection.clients import People
from bench.detection.datasets import Dataset
from bench.detection.log import Log
from bench.detection.scripts import Desk, Pieces, Visits
from bench.detection.victim import Model, label
from models.rows import CLASSES, F64, I64


class Kind(NamedTuple):
    """client_class : "consumer", "broker" or "system". share : of its class. active : probability of each day after the
    client's first, and of each before (one day is always active). steady : sends at a fixed pace all day.
    """

    client_class: str
    share: float
    active: float
    script: Callable[[Desk, Visits], Pieces]
    steady: bool = False


KINDS: Mapping[str, Kind] = {
    # Most people ask once; one in ten comes back on another day of a three-day window.
    "ordinary": Kind("consumer", 0.81, 0.05, scripts.ordinary),
    # Price comparison is common in lending; its Pareto tail sets the consumers' thresholds, so it must be fat enough
    # to be seen: 6 % of clients give 60 re-quoters in 1,000.
    "re-quoter": Kind("consumer", 0.06, 0.15, scripts.requoter),
    # People who lower the sum until they are accepted, or follow the score upwards: one in fifty.
    "shopper": Kind("consumer", 0.02, 0.10, scripts.shopper),
    "what-if": Kind("consumer", 0.02, 0.10, scripts.what_if),
    # A broken front end: one client in a hundred.
    "retry storm": Kind("consumer", 0.01, 0.05, scripts.retry_storm),
    "returning": Kind("consumer", 0.06, 0.60, scripts.returning),
    # People who ask for others too: couples, advisers, small brokers whom nobody registered. Without them every thief
    # and every dummy would stand out for nothing but having asked about many people.
    "asks for others": Kind("consumer", 0.02, 0.20, scripts.asks_for_others),
    "broker": Kind("broker", 0.80, 0.80, scripts.broker),
    # One front-end product among brokers: a fifth of them use it.
    "templated broker": Kind("broker", 0.20, 0.80, scripts.templated_broker),
    "health check": Kind("system", 0.40, 1.00, scripts.health_check, steady=True),
    "re-scoring": Kind("system", 0.25, 1.00, scripts.rescoring),
    "load test": Kind("system", 0.10, 0.50, scripts.load_test),
    "batch": Kind("system", 0.25, 1.00, scripts.batch),
}


def sizes(consumers: int, brokers: int, systems: int) -> dict[str, int]:
    """Clients per kind by the stated shares within each class, at least one of each kind of a class that is there."""
    totals = dict(zip(CLASSES, (consumers, brokers, systems), strict=True))
    made = {
        name: max(1, round(kind.share * totals[kind.client_class])) if totals[kind.client_class] else 0
        for name, kind in KINDS.items()
    }
    for client_class, first in (("consumer", "ordinary"), ("broker", "broker"), ("system", "health check")):
        rest = sum(count for name, count in made.items() if KINDS[name].client_class == client_class and name != first)
        made[first] = max(0, totals[client_class] - rest)
    return made


def population(dataset: Dataset, model: Model, sizes: Mapping[str, int], days: int, rng: np.random.Generator) -> Log:
    """Clients of each kind over this many days, in random order; each active on one or several of them.

    sizes : kind to number of clients.
    """
    desk = Desk(People(dataset), model, rng)
    total = sum(sizes.values())
    ordinal = rng.permutation(total)
    client_class, kind = np.zeros(total, np.uint8), np.zeros(total, np.uint8)
    visits, pieces, steady = [], [], []
    first = 0
    for code, (name, script) in enumerate(KINDS.items()):
        count = sizes.get(name, 0)
        if count == 0:
            continue
        clients = ordinal[first : first + count]
        first += count
        kind[clients], client_class[clients] = code, CLASSES.index(script.client_class)
        made = _visits(desk, clients, days, script.active)
        offset = sum(len(part.client) for part in visits)
        pieces += [(owner + offset, rows) for owner, rows in script.script(desk, made)]
        visits.append(made)
        steady.append(np.full(len(made.client), script.steady))
    owner = np.concatenate([owners for owners, _ in pieces])
    inputs = np.concatenate([rows for _, rows in pieces])
    whole = Visits(*(np.concatenate(columns) for columns in zip(*visits, strict=True)))
    return _log(desk, whole, np.concatenate(steady), owner, inputs)._replace(client_class=client_class, kind=kind)


def _visits(desk: Desk, clients: I64, days: int, active: float) -> Visits:
    """Client-days of one kind, by client and day, each with the person who comes."""
    there = desk.rng.random((len(clients), days)) < active
    there[np.arange(len(clients)), desk.rng.integers(0, days, len(clients))] = True
    who, day = np.nonzero(there)
    return Visits(clients[who], day, desk.people.draw(desk.rng, len(clients))[who])


def _log(desk: Desk, visits: Visits, steady: np.ndarray, owner: I64, inputs: F64) -> Log:
    """Requests in the order they were scripted, to a log sorted by client and time."""
    place = np.empty(len(visits.client), np.int64)
    by_client = np.lexsort((visits.day, visits.client))
    place[by_client] = np.arange(len(by_client))
    order = np.argsort(place[owner], kind="stable")
    counts = np.bincount(place[owner], minlength=len(by_client))
    inputs = inputs[order]
    client = np.repeat(visits.client[by_client], counts)
    score = desk.model.score(inputs)
    clients = int(visits.client.max()) + 1
    return Log(
        client=client,
        starts=np.concatenate(([0], np.cumsum(np.bincount(client, minlength=clients)))),
        client_class=np.zeros(clients, np.uint8),
        kind=np.zeros(clients, np.uint8),
        kinds=tuple(KINDS),
        time_ms=arrivals.times(desk.rng, counts, visits.day[by_client], steady[by_client]),
        inputs=inputs,
        score=score,
        label=label(score),
        probe=np.zeros(len(client), bool),
    )
