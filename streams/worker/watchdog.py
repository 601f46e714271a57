"""Timers for conditions that must not last: each counts how long its state has not changed."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple


class Wait(NamedTuple):
    """Something that should change within a time.

    state : the timer restarts when this changes.
    limit_s : how long it may stay the same.
    text : the error if it does.
    counts : whether the time since the last call counts.
    """

    state: Hashable
    limit_s: float
    text: str
    counts: bool = True


class WaitTimers:
    """A timer restarts when its state changes or it disappears."""

    def __init__(self) -> None:
        self._since: dict[Hashable, tuple[Hashable, float]] = {}

    def overdue(self, waits: Mapping[Hashable, Wait], waited_s: float) -> str | None:
        """The text of a wait beyond its limit, if any. waited_s : since the last call."""
        before, self._since = self._since, {}
        overdue = None
        for key, wait in waits.items():
            state, seconds = before.get(key, (None, 0.0))
            seconds = seconds + waited_s * wait.counts if key in before and state == wait.state else 0.0
            self._since[key] = wait.state, seconds
            if seconds > wait.limit_s:
                overdue = wait.text
        return overdue
