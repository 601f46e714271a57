"""What a report is made from."""

from collections.abc import Mapping
from typing import NamedTuple

from detector.events.finding import Event
from streams.analyst.labels import Label
from streams.replay import Outcome, Plan

TOLD = 24


class Replayed(NamedTuple):
    """A replay and its outcome. labels : of analysts, by incident. told : so many incidents are told in full."""

    plan: Plan
    outcome: Outcome
    labels: Mapping[str, Label] = {}
    told: int = TOLD

    @property
    def events(self) -> list[Event]:
        return self.outcome.events
