"""Which decision is in force: one answer for doors, the analyst's commands, reports and comparisons.

The records of one client, model and origin form a *timeline*. The last record that has taken effect replaces the ones
before it, also once it has expired. A decision that takes effect later leaves the one before it in force until then.
Records are given in the order of their topic. Records that are superseded, or come again, are ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from probewatch_door.record import ACTIONS, LIMITING, Throttle

TimelineKey = tuple[str, str, str]
"""Client, model ("" for every model), origin."""

ClientModel = tuple[str, str]
"""Client, model."""

Strictness = tuple[bool, int, float, float, int, int]


class DecisionSpan(NamedTuple):
    """From `start` up to, but not including, `end` this record is in force."""

    record: Throttle
    start: datetime
    end: datetime

    @property
    def minutes(self) -> float:
        return (self.end - self.start) / timedelta(minutes=1)


def counts(record: Throttle) -> bool:
    """Whether doors read this record at all: replayed records and those about a lineage are ignored."""
    return record.scope == "client" and not record.replay


def extended(timeline: Sequence[Throttle], record: Throttle) -> Sequence[Throttle]:
    """The timeline after one more record of its key; `effective_at` rises along it.

    A record that takes effect no earlier than its successor is never in force and is dropped.
    """
    if timeline and not _supersedes(record, timeline[-1]):
        return timeline
    return [*(earlier for earlier in timeline if earlier.effective_at < record.effective_at), record]


def in_effect(timeline: Sequence[Throttle], at: datetime) -> Throttle | None:
    """The last record that has taken effect, expired or not; None before the first."""
    return next((record for record in reversed(timeline) if record.effective_at <= at), None)


def in_force(timeline: Sequence[Throttle], at: datetime) -> Throttle | None:
    """The record in effect, unless it is a lift or has expired."""
    record = in_effect(timeline, at)
    return None if record is None or record.action == "lift" or record.expires_at <= at else record


def timelines(records: Iterable[Throttle]) -> dict[TimelineKey, Sequence[Throttle]]:
    """Records of any clients, by client, model and origin."""
    by_key: dict[TimelineKey, Sequence[Throttle]] = {}
    for record in filter(counts, records):
        key = record.client, record.model, record.origin
        by_key[key] = extended(by_key.get(key, ()), record)
    return by_key


def spans(records: Iterable[Throttle]) -> dict[TimelineKey, list[DecisionSpan]]:
    """When each record is in force, shadow mode and `observe` included; a record that never is has no span."""
    by_key = {key: _spans(timeline) for key, timeline in timelines(records).items()}
    return {key: own for key, own in by_key.items() if own}


def strictest(records: Iterable[Throttle], at: datetime) -> Throttle | None:
    """The strictest decision in force among records of one client; None if there is none."""
    held = (in_force(timeline, at) for timeline in timelines(records).values())
    return max((record for record in held if record is not None), key=strictness, default=None)


def obeyed(by_key: Mapping[TimelineKey, Sequence[DecisionSpan]]) -> dict[ClientModel, list[DecisionSpan]]:
    """Of all origins the strictest decision at every instant, by client and model; spans do not overlap.

    A decision on every model ("") counts for each model that is named for its client.
    """
    models: dict[str, set[str]] = {}
    for client, model, _ in by_key:
        models.setdefault(client, set()).add(model)
    own: dict[ClientModel, list[DecisionSpan]] = {}
    for (client, model, _), parts in by_key.items():
        for named in [model] if model else sorted(models[client] - {""}) or [""]:
            own.setdefault((client, named), []).extend(parts)
    return {subject: _strictest_of(own[subject]) for subject in sorted(own)}


def strictness(record: Throttle) -> Strictness:
    """Orders records, mildest first: what doors act on, then action, rate, concurrency, delay and level."""
    limits = record.limits
    rate = float("inf") if limits.requests_per_minute is None else limits.requests_per_minute
    concurrency = float("inf") if limits.max_concurrency is None else limits.max_concurrency
    asked = ACTIONS.index(record.action), -rate, -concurrency, limits.delay_ms or 0, record.level
    return is_enforced(record), *asked


def is_enforced(record: Throttle) -> bool:
    """Whether doors act on the record while it is in force."""
    return record.mode == "enforce" and record.action in LIMITING


def _supersedes(record: Throttle, other: Throttle) -> bool:
    """Revisions count within one state of the judge. Other artefacts may mean a new state that counts from 1 again."""
    if record.artefact_hash != other.artefact_hash:
        return record.issued_at >= other.issued_at
    return record.revision > other.revision


def _spans(timeline: Sequence[Throttle]) -> list[DecisionSpan]:
    successors = [record.effective_at for record in timeline[1:]]
    ends = [min(record.expires_at, end) for record, end in zip(timeline, successors, strict=False)]
    ends += [record.expires_at for record in timeline[-1:]]
    parts = [DecisionSpan(record, record.effective_at, end) for record, end in zip(timeline, ends, strict=True)]
    return [span for span in parts if span.record.action != "lift" and span.end > span.start]


def _strictest_of(parts: Sequence[DecisionSpan]) -> list[DecisionSpan]:
    """A sweep over starts and ends: few spans are open at once, since those of one key do not overlap."""
    waiting = sorted(parts, key=lambda span: span.start, reverse=True)
    edges = sorted({edge for span in parts for edge in (span.start, span.end)})
    open_spans: list[DecisionSpan] = []
    merged: list[DecisionSpan] = []
    for start, end in pairwise(edges):
        open_spans = [span for span in open_spans if span.end > start]
        while waiting and waiting[-1].start == start:
            open_spans.append(waiting.pop())
        if not open_spans:
            continue
        record = max((span.record for span in open_spans), key=strictness)
        if merged and merged[-1].end == start and merged[-1].record is record:
            merged[-1] = merged[-1]._replace(end=end)
        else:
            merged.append(DecisionSpan(record, start, end))
    return merged
