"""How a log lies in time: a client's clock never goes back, and rows that do stand at its latest time, like a flood."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detector.frame import RowFrame
from models.kernels.fold.client import MINUTE_MS
from models.rows import I64, U64, Rows

SHARE_TOLD = 0.01


class LogOrder(NamedTuple):
    """back : rows more than a minute before the latest time of their client. split : clients in more than one partition
    of one raw topic, whose records no reader gets in order of time."""

    rows: int
    back: int
    clients: int
    split: int

    def warnings(self) -> list[str]:
        """What is wrong with more than SHARE_TOLD of rows or clients, a sentence each."""
        found = []
        if self.back > SHARE_TOLD * self.rows:
            found.append(
                f"{self.back / self.rows:.0%} of the rows lie more than a minute before an earlier row of their client:"
                " the log runs back in time, and such clients look like floods. Replay the files of one log together,"
                " sort each by time, and key raw topics by client"
            )
        if self.split > SHARE_TOLD * self.clients:
            found.append(
                f"{self.split:,} of {self.clients:,} clients stand in several partitions of one raw topic: live,"
                " their records arrive in no order. Key the topic by client (docs/formats/requests.md)"
            )
        return found


def measured(rows: Mapping[str, Sequence[Rows]], topics: Mapping[int, str]) -> LogOrder:
    """Of a history in the order in which it is folded, by model. topics : of each source."""
    parts = [part for of_model in rows.values() for part in of_model]
    clients = np.concatenate([part.client for part in parts] or [np.zeros(0, np.uint64)])
    split = split_clients(_by_source(parts), topics)
    back = sum(_back(of_model) for of_model in rows.values())
    return LogOrder(len(clients), back, len(np.unique(clients)), split)


def _back(parts: Sequence[Rows]) -> int:
    if not parts:
        return 0
    client, time_ms = np.concatenate([p.client for p in parts]), np.concatenate([p.time_ms for p in parts])
    order = np.argsort(client, kind="stable")
    latest: I64 = time_ms[order]
    for own in np.split(latest, np.flatnonzero(np.diff(client[order])) + 1):
        np.maximum.accumulate(own, out=own)
    return int(np.count_nonzero((time_ms[order] > 0) & (time_ms[order] < latest - MINUTE_MS)))


def _by_source(parts: Iterable[Rows]) -> dict[int, U64]:
    found: dict[int, list[U64]] = {}
    for part in parts:
        for source in np.unique(part.source).tolist():
            found.setdefault(source, []).append(np.unique(part.client[part.source == source]))
    return {source: np.unique(np.concatenate(clients)) for source, clients in found.items()}


def split_clients(by_source: Mapping[int, U64], topics: Mapping[int, str]) -> int:
    """How many clients stand in several sources of one topic. by_source : clients of each, every one once."""
    of_topic: dict[str, list[U64]] = {}
    for source, clients in by_source.items():
        of_topic.setdefault(topics.get(source, ""), []).append(clients)
    split = [np.zeros(0, np.uint64)]
    for groups in of_topic.values():
        keys, sources = np.unique(np.concatenate(groups), return_counts=True)
        split.append(keys[sources > 1])
    return len(np.unique(np.concatenate(split)))


def topics_of(frame: RowFrame) -> dict[int, str]:
    """The raw topic of each source of a frame."""
    _, first = np.unique(frame.rows.source, return_index=True)
    return {int(frame.rows.source[row]): frame.source_of(row).rpartition("[")[0] for row in first.tolist()}
