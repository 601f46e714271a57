"""For how long clients were held, and how strictly: the decision that doors obey at each time."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from probewatch_door.in_force import obeyed, spans
from probewatch_door.record import LIMITING
from streams.analyst.events import ThrottleEvent, order


class HeldSpan(NamedTuple):
    """A period in which one decision about a client and model is the strictest in force."""

    client: str
    model: str
    level: int
    action: str
    mode: str
    reason: str
    since: datetime
    until: datetime

    @property
    def minutes(self) -> float:
        return (self.until - self.since) / timedelta(minutes=1)

    @property
    def limits(self) -> bool:
        """Whether gateways limit the client."""
        return self.mode == "enforce" and self.action in LIMITING


def stretches(throttles: Iterable[ThrottleEvent]) -> list[HeldSpan]:
    """In order of client, model and time; those of one client and model do not overlap. Lifts have none."""
    by_subject = obeyed(spans(event.record for event in sorted(throttles, key=order)))
    return [
        HeldSpan(client, model, record.level, record.action, record.mode, record.reason, start, end)
        for (client, model), own in by_subject.items()
        for record, start, end in own
    ]


def client_minutes(held: Iterable[HeldSpan]) -> dict[tuple[int, str, str], tuple[int, float]]:
    """(level, action, mode) -> clients, and client-minutes in all."""
    clients: dict[tuple[int, str, str], set[str]] = defaultdict(set)
    minutes: dict[tuple[int, str, str], float] = defaultdict(float)
    for span in held:
        about = span.level, span.action, span.mode
        clients[about].add(span.client)
        minutes[about] += span.minutes
    return {about: (len(clients[about]), minutes[about]) for about in sorted(minutes)}
