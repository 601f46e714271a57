"""A request log as columns: what every method of the benchmark reads, and the same log as native records."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.detection.datasets import Dataset, Field
from models.rows import CLASSES, F64, I64, U8

Bool = NDArray[np.bool_]

DAY_MS = 86_400_000
BEGIN_MS = 1_767_225_600_000
"""Midnight UTC of the first day of every log: 1 January 2026."""

RECORD_CHUNK = 4_096


class Log(NamedTuple):
    """n requests of c clients, sorted by client, then time.

    client : (n,) ordinal 0..c-1. starts : (c + 1,) rows of client i are starts[i]:starts[i + 1].
    client_class, kind : (c,) index into CLASSES and into kinds. time_ms : (n,) since 1970.
    inputs : (n, d) field values, categories as codes, NaN for a blank. score : (n,) probability of label 1.
    label : (n,) 0 or 1. probe : (n,) True for an attacker's own queries, False for benign rows and dummies.
    """

    client: I64
    starts: I64
    client_class: U8
    kind: U8
    kinds: tuple[str, ...]
    time_ms: I64
    inputs: F64
    score: F64
    label: I64
    probe: Bool

    @property
    def clients(self) -> int:
        return len(self.client_class)

    @property
    def rows(self) -> int:
        return len(self.client)

    @property
    def day(self) -> I64:
        """(n,) days since BEGIN_MS."""
        days: I64 = (self.time_ms - BEGIN_MS) // DAY_MS
        return days

    @property
    def client_days(self) -> int:
        """Pairs of a client and a day on which it sent something."""
        day = self.day
        new = (np.diff(self.client) != 0) | (np.diff(day) != 0)
        return int(new.sum()) + (self.rows > 0)


def take_clients(log: Log, wanted: I64) -> Log:
    """The log of these clients only, renumbered in the order given."""
    lengths = np.diff(log.starts)[wanted]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    rows = np.repeat(log.starts[wanted] - starts[:-1], lengths) + np.arange(starts[-1])
    return log._replace(
        client=np.repeat(np.arange(len(wanted)), lengths),
        starts=starts,
        client_class=log.client_class[wanted],
        kind=log.kind[wanted],
        time_ms=log.time_ms[rows],
        inputs=log.inputs[rows],
        score=log.score[rows],
        label=log.label[rows],
        probe=log.probe[rows],
    )


def concatenate(logs: Sequence[Log]) -> Log:
    """All clients of all logs, numbered on; the names of kinds are joined."""
    kinds = tuple(dict.fromkeys(kind for log in logs for kind in log.kinds))
    clients = np.cumsum([0, *(log.clients for log in logs)])
    rows = np.cumsum([0, *(log.rows for log in logs)])
    codes = [np.array([kinds.index(kind) for kind in log.kinds], np.uint8)[log.kind] for log in logs]
    return Log(
        client=np.concatenate([log.client + first for log, first in zip(logs, clients[:-1], strict=True)]),
        starts=np.concatenate(
            [[0], *(log.starts[1:] + first for log, first in zip(logs, rows[:-1], strict=True))]
        ).astype(np.int64),
        client_class=np.concatenate([log.client_class for log in logs]),
        kind=np.concatenate(codes),
        kinds=kinds,
        time_ms=np.concatenate([log.time_ms for log in logs]),
        inputs=np.concatenate([log.inputs for log in logs]),
        score=np.concatenate([log.score for log in logs]),
        label=np.concatenate([log.label for log in logs]),
        probe=np.concatenate([log.probe for log in logs]),
    )


def records(log: Log, dataset: Dataset, prefix: str, *, classes: bool = True) -> Iterator[bytes]:
    """Native records, one JSON object each, in order of time.

    request_id is the row's number in the log; client_id is prefix and ordinal. classes : declare client_class.
    """
    order = np.argsort(log.time_ms, kind="stable")
    encode = msgspec.json.Encoder().encode
    for first in range(0, len(order), RECORD_CHUNK):
        rows = order[first : first + RECORD_CHUNK]
        owners = log.client[rows]
        columns = [_plain(field, log.inputs[rows, j]) for j, field in enumerate(dataset.fields)]
        answers = zip(
            rows.tolist(),
            owners.tolist(),
            log.client_class[owners].tolist(),
            (log.time_ms[rows] / 1_000).tolist(),
            log.label[rows].tolist(),
            log.score[rows].tolist(),
            zip(*columns, strict=True),
            strict=True,
        )
        for row, owner, client_class, time_s, label, score, values in answers:
            record = {
                "ts": time_s,
                "request_id": str(row),
                "client_id": f"{prefix}{owner}",
                "model": dataset.name,
                "features": dict(zip(dataset.names, values, strict=True)),
                "output": {"label": dataset.labels[label], "score": score},
            }
            if classes:
                record["client_class"] = CLASSES[client_class]
            yield encode(record)


def _plain(field: Field, column: F64) -> Iterable[float | str | None]:
    """A column as JSON carries it: blanks as null, categories by name, whole numbers without a fraction."""
    if field.categories:
        return [None if value != value else field.categories[int(value)] for value in column.tolist()]
    return [None if value != value else int(value) if value == int(value) else value for value in column.tolist()]
