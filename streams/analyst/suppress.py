"""Suppressions: alerts that analysts do not want to see until a date. Nothing else changes: gateways still obey."""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
import structlog

from detector.events.encode import id_of
from probewatch_door.record import Time
from streams.analyst import feedback
from streams.analyst.events import Event, EventError, Place
from streams.analyst.incidents import Incident
from streams.config.config import Config
from streams.history.base import SourceError

log = structlog.get_logger()

SCHEMA = "probewatch.suppression/1"
REREAD_S = 30.0


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """Schema probewatch.suppression/1. What matches all of client, model and detector ("" for any) before `until`.

    Given again for the same three, it replaces the one before; an `until` that has passed takes it back.
    """

    schema: Literal["probewatch.suppression/1"] = "probewatch.suppression/1"
    suppression_id: str
    client: str
    model: str
    detector: str
    until: Time
    reason: str
    made_at: Time

    def hides(self, found: Event | Incident) -> bool:
        detectors = found.detectors if isinstance(found, Incident) else (found.detector,)
        last = found.last if isinstance(found, Incident) else found.time
        return (
            self.client in ("", found.client)
            and self.model in ("", found.model)
            and (not self.detector or set(detectors) <= {self.detector})
            and last < self.until
        )


_suppression = msgspec.json.Decoder(Suppression)


def suppression_of(
    client: str, model: str, detector: str, until: datetime, reason: str, made_at: datetime
) -> Suppression:
    """Raises FeedbackError if it would hide everything."""
    if not (client or model or detector):
        raise feedback.FeedbackError("name a client, a model or a detector: this would hide every alert")
    return Suppression(
        suppression_id=id_of(client, model, detector),
        client=client,
        model=model,
        detector=detector,
        until=until,
        reason=reason,
        made_at=made_at,
    )


def read_suppressions(place: Place, config: Config) -> list[Suppression]:
    """The last one about each, past ones too. Raises as `labels.read_labels`."""
    return suppressions_in(feedback.read(place, config))


def suppressions_in(said: Iterable[feedback.FeedbackRecord]) -> list[Suppression]:
    """Likewise, of what was read."""
    found = feedback.of(said, SCHEMA, _suppression.decode)
    return sorted({one.suppression_id: one for one in found}.values(), key=lambda one: (one.until, one.suppression_id))


def is_suppressed(item: Event | Incident, suppressions: Iterable[Suppression]) -> bool:
    return any(suppression.hides(item) for suppression in suppressions)


class CurrentSuppressions:
    """Suppressions, read again from time to time: for --follow."""

    def __init__(self, place: Place, config: Config) -> None:
        """Raises as `read_suppressions`."""
        self._place, self._config = place, config
        self._suppressions = read_suppressions(place, config)
        self._read_s = time.monotonic()

    def refresh(self) -> None:
        """Read them again after REREAD_S. If they cannot be read, keep the old ones and log a warning."""
        if time.monotonic() - self._read_s < REREAD_S:
            return
        self._read_s = time.monotonic()
        try:
            self._suppressions = read_suppressions(self._place, self._config)
        except (EventError, SourceError) as error:
            log.warning("suppressions not read again", error=str(error))

    def hides(self, item: Event | Incident) -> bool:
        return is_suppressed(item, self._suppressions)
