"""For how long clients were held back: client-minutes, by what doors obey."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from detector.events.finding import LEVELS
from probewatch_door.in_force import is_enforced, obeyed, spans
from probewatch_door.record import LIMITING
from streams.analyst.events import ThrottleEvent, order


class HeldMinutes(NamedTuple):
    """Client-minutes under decisions that limit; a client of two models counts for each.

    union : overlapping decisions count once. enforced : the share of `union` that doors obey.
    clients : how many clients were limited at any time. by_level, by_detector : overlapping decisions count each.
    """

    union: float
    enforced: float
    clients: int
    by_level: Mapping[str, float]
    by_detector: Mapping[str, float]


def held(throttles: Iterable[ThrottleEvent]) -> HeldMinutes:
    """A decision is in force from `effective_at` until it expires or its successor takes effect, as at a door."""
    by_key = spans(event.record for event in sorted(throttles, key=order))
    limiting = {key: [span for span in own if span.record.action in LIMITING] for key, own in by_key.items()}
    by_level: dict[str, float] = defaultdict(float)
    by_detector: dict[str, float] = defaultdict(float)
    for span in (span for own in limiting.values() for span in own):
        by_level[LEVELS[span.record.level]] += span.minutes
        by_detector[span.record.reason] += span.minutes
    strictest = [span for own in obeyed(limiting).values() for span in own]
    return HeldMinutes(
        union=round(sum(span.minutes for span in strictest), 3),
        enforced=round(sum(span.minutes for span in strictest if is_enforced(span.record)), 3),
        clients=len({span.record.client for span in strictest}),
        by_level={name: round(by_level[name], 3) for name in LEVELS if name in by_level},
        by_detector={name: round(minutes, 3) for name, minutes in sorted(by_detector.items())},
    )
