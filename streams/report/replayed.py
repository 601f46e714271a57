"""What a report is made from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detector.events.finding import Event
from models.artefacts.store import Artefacts
from streams.analyst.labels import Label
from streams.config.config import Config
from streams.history.base import Source
from streams.progress import Reporter
from streams.replay.outcome import Outcome
from streams.replay.run import DEFAULTS, Options
from streams.replay.survey import Survey
from streams.secrets.load import Secrets

TOLD = 24


class Replayed(NamedTuple):
    """What a replay read, as it was given, and what it found. labels : of analysts, by incident. told : so many
    incidents are told in full."""

    sources: Sequence[Source]
    config: Config
    artefacts: Artefacts
    secrets: Secrets
    reporter: Reporter
    outcome: Outcome
    options: Options = DEFAULTS
    labels: Mapping[str, Label] = {}
    told: int = TOLD

    @property
    def events(self) -> list[Event]:
        return self.outcome.events

    @property
    def survey(self) -> Survey:
        return self.outcome.survey
