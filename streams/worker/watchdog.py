"""How long something has been waited for, in seconds that count."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple


class Wait(NamedTuple):
    """state : as long as it stays the same, the wait goes on. counts : whether the time since the last look does."""

    state: Hashable
    limit_s: float
    text: str
    counts: bool = True


class Waits:
    """Whatever moved, or is no longer waited for, begins anew."""

    def __init__(self) -> None:
        self._since: dict[Hashable, tuple[Hashable, float]] = {}

    def over(self, waits: Mapping[Hashable, Wait], waited_s: float) -> str | None:
        """The text of a wait beyond its limit, if any. waited_s : since the last call."""
        before, self._since = self._since, {}
        found = None
        for what, wait in waits.items():
            state, seconds = before.get(what, (None, 0.0))
            seconds = seconds + waited_s * wait.counts if what in before and state == wait.state else 0.0
            self._since[what] = wait.state, seconds
            if seconds > wait.limit_s:
                found = wait.text
        return found
