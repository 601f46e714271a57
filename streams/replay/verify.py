"""Compares replayed with recorded events: the first difference, and the hashes that differ."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from detector.events.encode import moment
from models.pseudonym import client_of
from streams.analyst.events import Event as Recorded
from streams.analyst.events import Filter, decode_event
from streams.analyst.times import shown
from streams.config.input import PSEUDONYM
from streams.replay.outcome import Outcome
from streams.replay.selection import EVERYTHING, Selection

HASHES = ("config_hash", "artefact_hash", "engine_version")
SHOWN_CHARACTERS = 120


class Field(msgspec.Struct, frozen=True):
    """A field that differs: its path, and both values as JSON, truncated."""

    field: str
    recorded: str
    replayed: str


class EventDifference(msgspec.Struct, frozen=True):
    """An event that differs. what : "only recorded", "only replayed" or "changed". fields : of a changed one."""

    what: str
    kind: str
    uid: str
    time: str
    client: str
    model: str
    fields: list[Field]


class Verdict(msgspec.Struct, frozen=True):
    """Replayed events compared with recorded ones.

    equal : byte for byte. different : number of events that differ. by_hashes_alone : those of them that differ in
    nothing but hashes. first, beyond : the first difference, and the first beyond hashes. hashes : that differ, in the
    first difference or else in all events. cold_start : replayed events of a fold that began without earlier history;
    they need not be equal.
    """

    equal: bool
    recorded: int
    replayed: int
    different: int
    by_hashes_alone: int
    cold_start: int
    first: EventDifference | None
    beyond: EventDifference | None
    hashes: list[Field]


def wanted(selection: Selection) -> Filter:
    """The part of a selection that recorded events can answer; `verify` applies the rest."""
    since, until = (None if ms is None else moment(ms) for ms in (selection.since_ms, selection.until_ms))
    return Filter(since=since, until=until, model=selection.model)


def verify(outcome: Outcome, recorded: Iterable[Recorded], selection: Selection = EVERYTHING) -> Verdict:
    """Compare events by id, in order of time.

    Recorded events do not contain their offset: for a range of offsets only events that were replayed are compared.
    """
    cold = len(outcome.cold)
    theirs = {event.uid: event for event in recorded if _concerns(event, selection)}
    by_value = {event.raw: event for event in theirs.values()}
    replayed = (by_value.get(event.value) or decode_event(event.value) for event in outcome.events)
    ours = {event.uid: event for event in replayed}
    if selection.first is not None or selection.end is not None:
        theirs = {uid: event for uid, event in theirs.items() if uid in ours}
    unequal = [uid for uid in ours.keys() | theirs.keys() if not _same(ours.get(uid), theirs.get(uid))]
    if not unequal:
        return Verdict(True, len(theirs), len(ours), 0, 0, cold, None, None, [])
    ordered = sorted(unequal, key=lambda uid: (_either(ours, theirs, uid).time, uid))
    left, right = theirs.get(ordered[0]), ours.get(ordered[0])
    more = [uid for uid in ordered if not _by_hashes_alone(theirs.get(uid), ours.get(uid))]
    return Verdict(
        equal=False,
        recorded=len(theirs),
        replayed=len(ours),
        different=len(unequal),
        by_hashes_alone=len(unequal) - len(more),
        cold_start=cold,
        first=_difference(left, right),
        beyond=_difference(theirs.get(more[0]), ours.get(more[0])) if more else None,
        hashes=_hashes(left, right, theirs.values(), ours.values()),
    )


def _by_hashes_alone(recorded: Recorded | None, replayed: Recorded | None) -> bool:
    """An alert's policy.uid is the hash of the configuration."""
    if recorded is None or replayed is None:
        return False
    hashes = {f"{prefix}{name}" for prefix in ("", "unmapped.") for name in HASHES} | {"policy.uid"}
    return all(each.field in hashes for each in _fields(recorded, replayed))


def _concerns(event: Recorded, selection: Selection) -> bool:
    if not selection.clients:
        return True
    return PSEUDONYM.fullmatch(event.client) is not None and client_of(event.client) in selection.clients


def _same(ours: Recorded | None, theirs: Recorded | None) -> bool:
    return ours is not None and theirs is not None and ours.raw == theirs.raw


def _either(ours: dict[str, Recorded], theirs: dict[str, Recorded], uid: str) -> Recorded:
    return theirs[uid] if uid in theirs else ours[uid]


def _difference(recorded: Recorded | None, replayed: Recorded | None) -> EventDifference:
    event = recorded or replayed
    assert event is not None
    what = "only replayed" if recorded is None else "only recorded" if replayed is None else "changed"
    fields = [] if recorded is None or replayed is None else list(_fields(recorded, replayed))
    return EventDifference(
        what,
        type(event).__name__.removesuffix("Event").lower(),
        event.uid,
        shown(event.time),
        event.client,
        event.model,
        fields,
    )


def _fields(recorded: Recorded, replayed: Recorded) -> Iterable[Field]:
    left, right = (dict(_leaves(msgspec.json.decode(event.raw))) for event in (recorded, replayed))
    for path in [*left, *(path for path in right if path not in left)]:
        if left.get(path) != right.get(path):
            yield Field(path, _text(left.get(path)), _text(right.get(path)))


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:SHOWN_CHARACTERS]


def _hashes(
    left: Recorded | None, right: Recorded | None, theirs: Iterable[Recorded], ours: Iterable[Recorded]
) -> list[Field]:
    """The hashes that differ."""
    recorded: Sequence[Recorded] = [left] if left is not None and right is not None else list(theirs)
    replayed: Sequence[Recorded] = [right] if left is not None and right is not None else list(ours)
    differing = []
    for name in HASHES:
        before, after = ({getattr(event, name) for event in events} for events in (recorded, replayed))
        if before and after and before != after:
            differing.append(Field(name, ", ".join(sorted(before)), ", ".join(sorted(after))))
    return differing


def sentence(verdict: Verdict) -> str:
    """For a terminal."""
    if verdict.equal:
        return f"{verdict.replayed:,} events, byte for byte equal to the recorded ones"
    first = verdict.first
    assert first is not None
    lines = [
        f"{verdict.different:,} events differ ({verdict.recorded:,} recorded, {verdict.replayed:,} replayed)."
        f" The first: {first.kind} {first.uid} of {first.time}, {first.what}"
    ]
    lines += [f"  {one.field}: recorded {one.recorded}, replayed {one.replayed}" for one in first.fields]
    if verdict.by_hashes_alone:
        lines.append(f"  {verdict.by_hashes_alone:,} of them differ in these hashes only")
    if verdict.beyond is not None and verdict.beyond != first:
        more = verdict.beyond
        lines.append(f"  The first beyond hashes: {more.kind} {more.uid} of {more.time}, {more.what}")
        lines += [f"  {one.field}: recorded {one.recorded}, replayed {one.replayed}" for one in more.fields]
    if verdict.hashes:
        lines += [f"  {one.field} differs: {one.recorded} when recorded, {one.replayed} now" for one in verdict.hashes]
    else:
        lines.append(
            "  configuration, artefacts and engine are the same: the histories differ, or one is a part of the other"
        )
    if verdict.cold_start:
        lines.append(f"  {verdict.cold_start:,} replayed events are cold starts, which need not be equal")
    return "\n".join(lines)
