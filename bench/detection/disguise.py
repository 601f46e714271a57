"""How attackers hide their queries in a log: among other people's rows, over days, over accounts."""

from typing import NamedTuple

import numpy as np

from bench.detection import arrivals
from bench.detection.clients import People
from bench.detection.datasets import Dataset
from bench.detection.log import Log
from bench.detection.victim import Model, label
from models.rows import F64, I64


class Streams(NamedTuple):
    """Query streams of one family. inputs : one (n_i, d) matrix per victim, in order.

    success_at : (streams,) first query at which the attack has reached its own stated goal, -1 if never.
    seconds : that running it took.
    """

    family: str
    inputs: list[F64]
    success_at: I64
    seconds: float = 0.0


class Disguise(NamedTuple):
    """dummies : benign rows of other people per probe. accounts : clients that share one stream, in turn.

    days : the rows are spread evenly over so many days, the first being first_day.
    """

    dummies: int = 0
    accounts: int = 1
    days: int = 1
    first_day: int = 0


def disguise(streams: Streams, dataset: Dataset, model: Model, rng: np.random.Generator, how: Disguise) -> Log:
    """One log of all streams: client i * accounts + j is the j-th account of stream i; kinds = (family,); consumers.

    Requests come when benign clients' requests would: gaps and hours are drawn by the same function.
    """
    lengths = np.array([len(rows) for rows in streams.inputs])
    totals = lengths * (1 + how.dummies)
    stream = np.repeat(np.arange(len(totals)), totals)
    place = np.arange(len(stream)) - (np.cumsum(totals) - totals)[stream]
    # A random subset of places holds the probes, in their order; the others hold other people.
    keys = stream + rng.random(len(stream))
    rank = np.empty(len(stream), np.int64)
    rank[np.argsort(keys)] = place
    probe = rank < lengths[stream]
    inputs = np.empty((len(stream), len(dataset.fields)))
    inputs[probe] = np.concatenate(streams.inputs)
    if how.dummies:
        inputs[~probe] = People(dataset).bootstrap(rng, int((~probe).sum()))
    day = place * how.days // np.maximum(totals, 1)[stream]
    counts = np.bincount(stream * how.days + day, minlength=len(totals) * how.days)
    used = np.flatnonzero(counts)
    # One clock per stream, not per account: a query that builds on an answer comes after it.
    time_ms = arrivals.times(rng, counts[used], how.first_day + used % how.days)
    client = stream * how.accounts + place % how.accounts
    order = np.argsort(client, kind="stable")
    score = model.score(inputs)
    clients = len(totals) * how.accounts
    return Log(
        client=client[order],
        starts=np.concatenate(([0], np.cumsum(np.bincount(client, minlength=clients)))),
        client_class=np.zeros(clients, np.uint8),
        kind=np.zeros(clients, np.uint8),
        kinds=(streams.family,),
        time_ms=time_ms[order],
        inputs=inputs[order],
        score=score[order],
        label=label(score)[order],
        probe=probe[order],
    )


def success_rows(log: Log, streams: Streams, accounts: int = 1) -> I64:
    """(streams,) row of the log at which each stream has succeeded; -1 for those that never do."""
    rows = np.full(len(streams.inputs), -1, np.int64)
    for i in np.flatnonzero(streams.success_at >= 0).tolist():
        first, last = log.starts[[i * accounts, (i + 1) * accounts]]
        probes = first + np.flatnonzero(log.probe[first:last])
        rows[i] = probes[np.argsort(log.time_ms[probes], kind="stable")[streams.success_at[i]]]
    return rows
