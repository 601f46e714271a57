"""Matches the events of two replays."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from streams.analyst.events import Alert, DriftEvent, ThrottleEvent
from streams.analyst.times import shown

E = TypeVar("E", Alert, ThrottleEvent, DriftEvent)


class EventChange(msgspec.Struct, frozen=True):
    """One value that differs between two events; both as text."""

    field: str
    a: str
    b: str


class Changed(msgspec.Struct, frozen=True):
    """An event of both replays, with different values."""

    kind: str
    a_uid: str
    b_uid: str
    client: str
    model: str
    detector: str
    time: str
    changes: list[EventChange]


class Alone(msgspec.Struct, frozen=True):
    """An event of only one replay."""

    kind: str
    uid: str
    client: str
    model: str
    detector: str
    level: int
    time: str


class Pairs(NamedTuple):
    """Events of one kind. same : number of events with equal values; hashes and ids may differ."""

    same: int
    changed: list[Changed]
    lost: list[Alone]
    new: list[Alone]


def pairs(kind: str, a: Sequence[E], b: Sequence[E]) -> Pairs:
    """First by id; the rest by client, model and level: the n-th of these in A belongs to the n-th in B."""
    by_uid = {event.uid: event for event in b}
    matched = [(event, by_uid.pop(event.uid)) for event in a if event.uid in by_uid]
    matched_uids = {left.uid for left, _ in matched}
    waiting: dict[tuple[Any, ...], list[E]] = defaultdict(list)
    for event in sorted(by_uid.values(), key=lambda event: (event.time, event.uid), reverse=True):
        waiting[_about(event)].append(event)
    lost = []
    for event in sorted(
        (event for event in a if event.uid not in matched_uids), key=lambda event: (event.time, event.uid)
    ):
        others = waiting[_about(event)]
        if others:
            matched.append((event, others.pop()))
        else:
            lost.append(_alone(kind, event))
    new = sorted((_alone(kind, event) for others in waiting.values() for event in others), key=_order)
    differing = [(left, right, list(_changes(left, right))) for left, right in matched]
    changed = [_changed(kind, left, right, changes) for left, right, changes in differing if changes]
    return Pairs(len(matched) - len(changed), sorted(changed, key=_order), lost, new)


def _order(one: Changed | Alone) -> tuple[str, str, str]:
    return one.time, one.client, one.kind


def _about(event: Alert | ThrottleEvent | DriftEvent) -> tuple[Any, ...]:
    statistic = event.record.statistic if isinstance(event, DriftEvent) else ""
    state = event.record.state if isinstance(event, DriftEvent) else ""
    return event.client, event.model, event.level, statistic, state


def _alone(kind: str, event: Alert | ThrottleEvent | DriftEvent) -> Alone:
    return Alone(kind, event.uid, event.client, event.model, event.detector, event.level, shown(event.time))


def _changed(
    kind: str, a: Alert | ThrottleEvent | DriftEvent, b: Alert | ThrottleEvent | DriftEvent, changes: list[EventChange]
) -> Changed:
    return Changed(kind, a.uid, b.uid, a.client, a.model, a.detector, shown(a.time), changes)


def _changes(a: Alert | ThrottleEvent | DriftEvent, b: Alert | ThrottleEvent | DriftEvent) -> Iterable[EventChange]:
    left, right = _values(a), _values(b)
    for field, value in left.items():
        if field in right and value != right[field]:
            yield EventChange(field, str(value), str(right[field]))


def _values(event: Alert | ThrottleEvent | DriftEvent) -> dict[str, Any]:
    """The values of an event without ids and hashes, which differ with any setting."""
    values: dict[str, Any] = {"time": shown(event.time), "detector": event.detector, "level": event.level}
    if isinstance(event, Alert):
        rows = event.trigger.rows_seen if event.trigger is not None else None
        fields = ("process", "mode", "evidence_nats", "threshold_nats", "certified")
        return values | {"rows_seen": rows} | {name: getattr(event, name) for name in fields}
    if isinstance(event, DriftEvent):
        plain = msgspec.to_builtins(event.record)
        return values | {name: plain[name] for name in ("since", "until", "magnitude", "direction", "rows")}
    record = event.record
    fields = ("action", "mode", "evidence_nats", "threshold_nats", "certified")
    limits = {name: value for name, value in msgspec.structs.asdict(record.limits).items() if value is not None}
    times = {"effective_at": shown(record.effective_at), "expires_at": shown(record.expires_at)}
    values |= {name: getattr(record, name) for name in fields}
    return values | times | {"limits": limits, "rows_seen": record.trigger.rows_seen}
