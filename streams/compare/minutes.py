"""For how long clients were held back: client-minutes, by what doors obey."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from detector.events.finding import LEVELS
from streams.analyst.events import ThrottleEvent

FREE = ("observe", "lift")
"""Actions that hold nobody back."""

Span = tuple[datetime, datetime]


class HeldMinutes(NamedTuple):
    """Client-minutes; a client of two models counts for each. union : overlapping decisions counted once.

    clients : how many clients were held back at any time. enforced : the share of `union` that doors would have obeyed.
    """

    union: float
    enforced: float
    clients: int
    by_level: Mapping[str, float]
    by_detector: Mapping[str, float]


def held(throttles: Iterable[ThrottleEvent]) -> HeldMinutes:
    """A decision holds from `effective_at` until it expires or the next one of its key takes its place."""
    by_key: dict[tuple[str, str, str], list[ThrottleEvent]] = defaultdict(list)
    for event in throttles:
        by_key[event.client, event.model, event.record.origin].append(event)
    by_level: dict[str, float] = defaultdict(float)
    by_detector: dict[str, float] = defaultdict(float)
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    enforced: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for (client, model, _), events in sorted(by_key.items()):
        for event, span in _in_force(events):
            minutes = (span[1] - span[0]) / timedelta(minutes=1)
            by_level[LEVELS[event.level]] += minutes
            by_detector[event.detector] += minutes
            spans[client, model].append(span)
            if event.mode == "enforce":
                enforced[client, model].append(span)
    clients = len({client for client, _ in spans})
    levels = {name: round(by_level[name], 3) for name in LEVELS if name in by_level}
    detectors = {name: round(minutes, 3) for name, minutes in sorted(by_detector.items())}
    return HeldMinutes(_minutes(spans), _minutes(enforced), clients, levels, detectors)


def _in_force(events: Sequence[ThrottleEvent]) -> Iterable[tuple[ThrottleEvent, Span]]:
    ordered = sorted(events, key=lambda event: (event.time, event.record.revision))
    for event, after in zip(ordered, [*ordered[1:], None], strict=True):
        end = event.record.expires_at if after is None else min(event.record.expires_at, after.time)
        if event.record.action not in FREE and end > event.record.effective_at:
            yield event, (event.record.effective_at, end)


def _minutes(spans: Mapping[tuple[str, str], Sequence[Span]]) -> float:
    total = timedelta()
    for own in spans.values():
        reached: datetime | None = None
        for begin, end in sorted(own):
            begin = begin if reached is None else max(begin, reached)
            if end > begin:
                total += end - begin
                reached = end
    return round(total / timedelta(minutes=1), 3)
