"""For how long clients were held, and how strictly: what follows from throttle records, each until the next."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from streams.analyst.events import ThrottleEvent

LIMITING = ("delay", "cap", "challenge", "block")


class HeldSpan(NamedTuple):
    """One stretch under one decision. until : its end, or the next decision's beginning."""

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
        """Whether gateways acted on it, and not by watching alone."""
        return self.mode == "enforce" and self.action in LIMITING


def stretches(throttles: Iterable[ThrottleEvent]) -> list[HeldSpan]:
    """In order of client, model and time; what a lift or the next decision left nothing of is not among them."""
    by_subject: dict[tuple[str, str], list[ThrottleEvent]] = defaultdict(list)
    for throttle in throttles:
        by_subject[throttle.client, throttle.model].append(throttle)
    return [held for _, decisions in sorted(by_subject.items()) for held in _of_one(decisions)]


def _of_one(decisions: Sequence[ThrottleEvent]) -> list[HeldSpan]:
    ordered = sorted((one.record for one in decisions), key=lambda record: (record.issued_at, record.revision))
    ends = [*(record.effective_at for record in ordered[1:]), None]
    found = []
    for record, end in zip(ordered, ends, strict=True):
        until = record.expires_at if end is None else min(end, record.expires_at)
        if record.action != "lift" and until > record.effective_at:
            about = record.client, record.model, record.level, record.action, record.mode, record.reason
            found.append(HeldSpan(*about, record.effective_at, until))
    return found


def client_minutes(held: Iterable[HeldSpan]) -> dict[tuple[int, str, str], tuple[int, float]]:
    """(level, action, mode) -> clients, and client-minutes in all."""
    clients: dict[tuple[int, str, str], set[str]] = defaultdict(set)
    minutes: dict[tuple[int, str, str], float] = defaultdict(float)
    for stretch in held:
        about = stretch.level, stretch.action, stretch.mode
        clients[about].add(stretch.client)
        minutes[about] += stretch.minutes
    return {about: (len(clients[about]), minutes[about]) for about in sorted(minutes)}
